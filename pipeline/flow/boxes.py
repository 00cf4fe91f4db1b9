"""The physical plan: which nodes of the graph share a box, that is a host process.

Neighbouring nodes in one box are *chained*: what they give each other never leaves the process. A box of pooled nodes
only is pooled; a box with a per-stream node is per-stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import GraphError
from pipeline.graph import Graph, Node
from pipeline.stage import PooledStage
from pipeline.wire.acks import Checkpoint

SOURCE = "source"
"""The producer of packets, in edges and shelves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Nodes that run in one process, and how the flow has to feed them.

    Attributes:
        name: the nodes' names joined by "+".
        nodes: in topological order.
        pooled: any worker may do any span; else one object a stream, spans in order.
        packets: driven by the source's packets; else by frames.
        batch: frames a call (spans lie on this grid); of the first node.
        halo: frames before and after that a call of a pooled box needs of its driving input.
        inputs: producers outside the box, the driving one first, each once.
        exports: nodes of the box whose output other boxes take.
        sinks: nodes of the box that make things durable.
    """

    name: str
    nodes: tuple[Node, ...]
    pooled: bool
    packets: bool
    batch: int
    halo: tuple[int, int]
    inputs: tuple[str, ...]
    exports: tuple[str, ...]
    sinks: tuple[str, ...]

    @property
    def networks(self) -> bool:
        """Whether it runs one: such a box starts faster where one has been loaded."""
        return any(node.networks for node in self.nodes)


def is_pooled(node: Node) -> bool:
    """Say whether a node's stage is stateless."""
    return issubclass(node.stage, PooledStage)


def make_boxes(graph: Graph, groups: Sequence[Sequence[str]]) -> tuple[Box, ...]:
    """Return the boxes of a plan in topological order.

    Args:
        graph: checked.
        groups: names of nodes that share a box; each node once.

    Raises:
        GraphError: a node is missing or named twice, or a group cannot be a box.
    """
    named = [name for group in groups for name in group]
    names = [node.name for node in graph.nodes]
    if sorted(named) != sorted(names):
        raise GraphError(
            f"the plan's boxes hold {', '.join(sorted(named))}; the graph has {', '.join(sorted(names))}",
            where="flow.plan",
            hint="name each stage once",
        )
    group_of = {name: index for index, group in enumerate(groups) for name in group}
    boxes = [_box(graph, tuple(n for n in graph.nodes if group_of[n.name] == i)) for i in range(len(groups))]
    return _in_order(boxes)


def _box(graph: Graph, nodes: tuple[Node, ...]) -> Box:
    inside = {node.name for node in nodes}
    inputs: list[str] = []
    for node in nodes:
        for edge in node.inputs:
            if edge.producer not in inside and edge.producer not in inputs:
                inputs.append(edge.producer)
    pooled = all(is_pooled(node) for node in nodes)
    where = "+".join(node.name for node in nodes)
    if SOURCE in inputs and len(inputs) > 1:
        raise GraphError(
            "takes packets and frames from outside at once",
            where=where,
            hint="chain decode into this box or take it apart",
        )
    if pooled and any(node.stage.spec.halo_frames != (0, 0) for node in nodes[1:]):
        raise GraphError("only the first stage of a pooled box may have a halo", where=where, hint="take it apart")
    exports = [
        node.name
        for node in nodes
        if any(edge.producer == node.name for other in graph.nodes if other.name not in inside for edge in other.inputs)
    ]
    first = nodes[0].stage.spec
    return Box(
        name=where,
        nodes=nodes,
        pooled=pooled,
        packets=inputs == [SOURCE],
        batch=nodes[0].batch_frames,
        halo=first.halo_frames,
        inputs=tuple(inputs),
        exports=tuple(exports),
        sinks=tuple(node.name for node in nodes if node.stage.spec.gives is None),
    )


def _in_order(boxes: Sequence[Box]) -> tuple[Box, ...]:
    done: set[str] = {SOURCE}
    left, order = list(boxes), []
    while left:
        ready = next((box for box in left if set(box.inputs) <= done), None)
        if ready is None:
            raise GraphError(
                "the boxes feed each other in a circle: " + ", ".join(box.name for box in left),
                where="flow.plan",
                hint="chain stages that are neighbours",
            )
        left.remove(ready)
        order.append(ready)
        done |= {node.name for node in ready.nodes}
    return tuple(order)


def groups_of(graph: Graph, plan: str, *, lanes: int = 2) -> list[list[str]]:
    """Return the groups of a named plan.

    "unchained": each node its own box. "chained": one box. "auto": up to `lanes` boxes of about equal cost, cut where
    little data crosses (`balance`).
    """
    names = [node.name for node in graph.nodes]
    if plan == "unchained":
        return [[name] for name in names]
    if plan == "chained" or lanes < 2:
        return [names]
    return balance(graph)


def balance(graph: Graph) -> list[list[str]]:
    """Return two boxes: what works on the source's frames up to enhancement, and what works on the enhanced ones.

    Enhancement is the dearest stage by far (two thirds of the CPU time measured on real clips), all others together are
    the second box's work; one batch of enhanced frames crosses between them.
    """
    names = [node.name for node in graph.nodes]
    if "enhance" not in names:
        return [names]
    second: set[str] = set()
    for node in graph.nodes:
        if any(edge.producer == "enhance" or edge.producer in second for edge in node.inputs):
            second.add(node.name)
    return [[n for n in names if n not in second], [n for n in names if n in second]]


def producers(boxes: Sequence[Box]) -> Mapping[str, Box]:
    """Return for each exported node its box."""
    return {name: box for box in boxes for name in box.exports}


def starts_of(box: Box, checkpoint: Checkpoint | None) -> dict[str, int]:
    """Return for each input the first unit that a per-stream box restored from `checkpoint` needs of it."""
    starts: dict[str, int] = {}
    for node in box.nodes:
        halo = 0 if box.packets else node.stage.spec.halo_frames[0]
        low = max(0, checkpoint[node.name].resume_from - halo) if checkpoint is not None else 0
        for edge in node.inputs:
            if edge.producer in box.inputs:
                starts[edge.producer] = min(starts.get(edge.producer, low), low)
    return starts
