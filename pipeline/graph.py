"""The logical graph: which stages a stream passes, how they are connected and configured.

A graph is data (YAML): a name and a list of stages.

    name: enhance
    stages:
      - {stage: decode, after: source}
      - {stage: "brightness:Brightness", name: brighter, after: decode, config: {gain: 1.2}}
      - {stage: encode, after: brighter}

`after` names a stage's inputs: "source", a node, or a field of what a node gives ("guard.frames"). They stand in the
order of the stage's `takes`, then of its `optional` types; the first drives. `name` is the stage's own unless given.
All faults of a graph are found at once and told in one GraphError.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.config import Settings, nearest
from pipeline.errors import ConfigError, GraphError
from pipeline.stage import Stage, StageConfig, StageEnv
from pipeline.stages import FLOW
from pipeline.wire.acks import Stamp
from pipeline.wire.packets import PacketBatch

SOURCE = "source"
"""The producer of the packets, which every graph starts at; no node may have that name."""

SHIPPED = Path(__file__).parent / "graphs"

ENHANCING = frozenset({"enhance", "refine", "guard"})
"""Stages that `enhance.enabled: false` takes out."""

REFINING = frozenset({"refine"})
"""Stages that `refine.budget: 0` takes out."""

ANALYSING = frozenset({"quality"})
"""Stages that `analyse.enabled: false` takes out."""

COMPARING = frozenset({"original"})
"""Stages that `outputs.original` switches."""

KEEPING = frozenset({"packets"})
"""Stages that `outputs.packets: false` takes out."""

_KEYS = ("stage", "name", "after", "config")
_TOP = ("name", "stages", "batch_frames")
_MOST_FRAMES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """One input: what `producer` (SOURCE or a node's name) gives, or the `field` of it; "" is all of it."""

    producer: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.producer}.{self.field}" if self.field else self.producer

    @staticmethod
    def parse(text: str) -> Edge:
        """Return the edge that "guard.frames" or "decode" stands for."""
        producer, _, field = text.partition(".")
        return Edge(producer=producer, field=field)


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A stage in its place; `inputs[0]` drives."""

    name: str
    stage: type[Stage[Any]]
    config: StageConfig
    inputs: tuple[Edge, ...]
    at_most: int | None = None

    @property
    def batch_frames(self) -> int:
        """Frames a call: what the stage asks for, but `at_most` as many as the graph allows."""
        asked = self.stage.spec.batch_frames
        return asked if self.at_most is None else min(asked, self.at_most)

    @property
    def networks(self) -> bool:
        """Whether the stage runs networks: it loads weights, and has a runtime to choose."""
        return bool(self.stage.spec.models)

    def build(self) -> Stage[Any]:
        """Return a new stage object with this node's configuration, not yet opened."""
        return self.stage(self.config)


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """A checked graph; `nodes` are in topological order.

    `batch_frames`: frames that a stage gets at a time, at most; None: as many as it asks for.
    """

    name: str
    nodes: tuple[Node, ...]
    batch_frames: int | None = None

    def node(self, name: str) -> Node:
        """Return the node `name`; it must exist."""
        return next(node for node in self.nodes if node.name == name)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that take what `name` (SOURCE or a node) gives, in topological order."""
        return tuple(node for node in self.nodes if any(edge.producer == name for edge in node.inputs))

    def sinks(self) -> tuple[Node, ...]:
        """Return the nodes that give nothing and make things durable."""
        return tuple(node for node in self.nodes if node.stage.spec.gives is None)

    def to_dict(self) -> dict[str, Any]:
        """Return the graph, each stage's whole configuration in it, as JSON-able values, as a YAML file holds it."""
        return {
            "name": self.name,
            "batch_frames": self.batch_frames,
            "stages": [
                {
                    "stage": _reference(node.stage),
                    "name": node.name,
                    "after": [str(edge) for edge in node.inputs],
                    "config": TypeAdapter(type(node.config)).dump_python(node.config, mode="json"),
                }
                for node in self.nodes
            ],
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any], *, allowed_modules: Sequence[str] = (), where: str = "graph") -> Graph:
        """Return the graph that `to_dict` gave, or that a YAML file holds. Raises GraphError."""
        return _Loader(where, allowed_modules).graph(values)


def load_graph(text_or_path: str | Path, *, allowed_modules: Sequence[str] = ()) -> Graph:
    """Return the checked graph of a YAML text (it has line breaks) or of the file at a path.

    Args:
        text_or_path: YAML, a path, or the name of a shipped graph ("enhance").
        allowed_modules: modules and packages from which `module:Class` stages may be imported; that runs their code.

    Raises:
        GraphError: the file cannot be read, or the graph has faults; names all of them.
    """
    where, values = _read(text_or_path)
    return Graph.from_dict(values, allowed_modules=allowed_modules, where=where)


def graph_of(settings: Settings, *, live: bool = False) -> Graph:
    """Return the graph that `settings` ask for: shipped or the user's own, switched and configured.

    A `live` stream's stages get fewer frames at a time (`live.batch_frames`), unless the graph itself says how many.

    A stage is configured by the settings' section of its name (`encode.crf` goes to the field `crf` of encode's
    configuration, if it has one); `config` in the graph itself wins. Stages that are switched off are taken out:
    whoever took what they gave takes their first input instead if that is of the right type, else goes without.

    Raises:
        GraphError: as load_graph.
    """
    where, values = _read(settings.graph or "enhance")
    loader = _Loader(where, settings.stage_modules, settings)
    switched = (
        (settings.enhance.enabled, ENHANCING),
        (settings.refine.budget > 0, REFINING),
        (settings.analyse.enabled, ANALYSING),
        (settings.outputs.original, COMPARING),
        (settings.outputs.packets, KEEPING),
    )
    off = frozenset[str]().union(*(stages for on, stages in switched if not on))
    return loader.graph(values, off, settings.live.batch_frames if live else None)


def choose_stamp(graph: Graph, device: str = "cpu") -> Stamp:
    """Return what the stages that need weights choose on a device (runtime, threads) and load (model's version)."""
    stamp = Stamp()
    for node in graph.nodes:
        if node.networks:
            stage = node.build()
            try:
                stage.open(StageEnv(device=device))
                own = stage.stamp()
                stamp = own if own.runtime else stamp  # refine goes by enhance's
            finally:
                stage.close()
    return stamp


def _read(text_or_path: str | Path) -> tuple[str, Any]:
    text, where = str(text_or_path), "graph"
    if "\n" not in text:
        path = SHIPPED / f"{text}.yaml" if (SHIPPED / f"{text}.yaml").is_file() else Path(text)
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            shipped = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
            raise GraphError(
                f"cannot be read: {error}", where=where, hint=f"give a YAML file's path, or a shipped one: {shipped}"
            ) from error
    try:
        return where, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise GraphError(f"is no YAML: {' '.join(str(error).split())}", where=where, hint="correct it there") from error


def _reference(stage: type[Stage[Any]]) -> str:
    reference = f"{stage.__module__}:{stage.__qualname__}"
    return next((name for name, known in FLOW.items() if known == reference), reference)


def _part(whole: type | None, field: str) -> type | None:
    """Return the type of `whole`'s attribute `field`, as annotated; `whole` itself for "", None if there is none."""
    if whole is None or not field:
        return whole
    found = typing.get_type_hints(whole).get(field)
    return found if isinstance(found, type) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """An entry of the file, as far as it could be understood."""

    name: str
    stage: type[Stage[Any]] | None
    inputs: tuple[Edge, ...]
    config: Mapping[str, Any]


class _Loader:
    """Reads one graph and collects its faults."""

    def __init__(self, where: str, allowed_modules: Sequence[str], settings: Settings | None = None) -> None:
        self._where = where
        self._allowed = allowed_modules
        self._settings = settings
        self._faults: list[str] = []

    def graph(self, values: Any, off: frozenset[str] = frozenset(), batch_frames: int | None = None) -> Graph:
        """Return the graph of a parsed file without the stages `off`; raises GraphError with all faults."""
        name, batch_frames, entries = self._parse(values, batch_frames)
        self._check_names(entries)
        if not self._faults:
            self._check_edges(entries)
        if not self._faults and off:
            entries = self._without(entries, off)
        nodes = []
        for entry in self._ordered(entries):
            config = self._config(entry)
            if entry.stage is not None and config is not None:
                self._check_weights(entry, config)
                nodes.append(
                    Node(name=entry.name, stage=entry.stage, config=config, inputs=entry.inputs, at_most=batch_frames)
                )
        if not self._faults and not any(node.stage.spec.gives is None for node in nodes):
            self._faults.append("it has no sink (encode, audio, record), so nothing would be kept")
        if self._faults:
            what = self._faults[0]
            if len(self._faults) > 1:
                what = f"{len(self._faults)} faults: " + "; ".join(self._faults)
            raise GraphError(what, where=self._where, hint="`limpid graph` prints a graph that can be built")
        return Graph(name=name, nodes=tuple(nodes), batch_frames=batch_frames)

    def _parse(self, values: Any, batch_frames: int | None) -> tuple[str, int | None, list[_Entry]]:
        if not isinstance(values, dict) or not isinstance(values.get("stages"), list) or not values["stages"]:
            raise GraphError("it has no list 'stages'", where=self._where, hint="write 'stages: [{stage: decode, …}]'")
        self._faults += [f"unknown key '{k}', {nearest(str(k), _TOP)}" for k in values if k not in _TOP]
        own = values.get("batch_frames")
        if own is not None and (type(own) is not int or not 1 <= own <= _MOST_FRAMES):
            self._faults.append(f"batch_frames is {own!r}, not a whole number from 1 to {_MOST_FRAMES}")
        entries = [self._entry(i, v) for i, v in enumerate(values["stages"])]
        return str(values.get("name", "graph")), batch_frames if own is None else own, entries

    def _entry(self, index: int, values: Any) -> _Entry:
        if not isinstance(values, dict) or not isinstance(values.get("stage"), str):
            self._faults.append(f"entry {index + 1} of 'stages' names no stage")
            return _Entry(name=f"#{index + 1}", stage=None, inputs=(), config={})
        reference = values["stage"]
        name = str(values.get("name", reference.rpartition(":")[2].lower()))
        self._faults += [
            f"{name}: unknown key '{key}', {nearest(str(key), _KEYS)}" for key in values if key not in _KEYS
        ]
        after = values.get("after", [])
        after = [after] if isinstance(after, str) else after
        config = values.get("config") or {}
        if not isinstance(after, list) or not isinstance(config, dict):
            self._faults.append(f"{name}: 'after' is a name or a list of names, 'config' a mapping")
            after, config = [], {}
        return _Entry(
            name=name,
            stage=self._stage(name, reference),
            inputs=tuple(Edge.parse(str(text)) for text in after),
            config=config,
        )

    def _stage(self, name: str, reference: str) -> type[Stage[Any]] | None:
        if ":" not in reference:
            if reference not in FLOW:
                self._faults.append(f"{name}: unknown stage '{reference}', {nearest(reference, FLOW)}")
                return None
            reference = FLOW[reference]
        elif reference not in FLOW.values():
            module = reference.partition(":")[0]
            if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in self._allowed):
                self._faults.append(
                    f"{name}: module '{module}' is not allowed, add it to stage_modules if you trust it"
                )
                return None
        module, _, attribute = reference.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            self._faults.append(f"{name}: '{reference}' cannot be imported, {error}")
            return None
        if not (isinstance(found, type) and issubclass(found, Stage) and hasattr(found, "spec")):
            self._faults.append(f"{name}: '{reference}' is no stage with a spec")
            return None
        return found

    def _check_names(self, entries: Sequence[_Entry]) -> None:
        seen = {SOURCE}
        for entry in entries:
            if entry.name in seen or "." in entry.name or not entry.name:
                why = (
                    "is reserved" if entry.name == SOURCE else "is there twice" if entry.name in seen else "is no name"
                )
                self._faults.append(f"the name '{entry.name}' {why}, set another 'name'")
            seen.add(entry.name)
        for entry in entries:
            for edge in entry.inputs:
                if edge.producer not in seen:
                    self._faults.append(
                        f"{entry.name}: unknown input '{edge.producer}', {nearest(edge.producer, seen)}"
                    )

    def _check_edges(self, entries: Sequence[_Entry]) -> None:
        """Every input has the type that its stage takes, and every output is taken."""
        by_name = {entry.name: entry for entry in entries}
        for entry in entries:
            assert entry.stage is not None, "entries with faults are not checked further"
            spec = entry.stage.spec
            given = [self._given(entry, edge, by_name) for edge in entry.inputs]
            wanted = list(spec.takes)
            for i, (edge, found) in enumerate(zip(entry.inputs, given, strict=True)):
                if found is None:
                    continue
                if i < len(wanted):
                    if not issubclass(found, wanted[i]):
                        kind = wanted[i].__name__
                        self._faults.append(
                            f"{entry.name}: input {i + 1} is to be a {kind}, '{edge}' gives {found.__name__}"
                        )
                elif not issubclass(found, spec.optional):
                    self._faults.append(f"{entry.name}: takes no {found.__name__} ('{edge}')")
            missing = wanted[len(given) :]
            if missing:
                names = ", ".join(kind.__name__ for kind in missing)
                self._faults.append(f"{entry.name}: input {len(given) + 1} is missing ({names})")
        taken = {edge.producer for entry in entries for edge in entry.inputs}
        for entry in entries:
            if entry.name not in taken and entry.stage is not None and entry.stage.spec.gives is not None:
                self._faults.append(f"{entry.name}: nobody takes what it gives, connect or remove it")

    def _given(self, entry: _Entry, edge: Edge, by_name: Mapping[str, _Entry]) -> type | None:
        whole: type | None = PacketBatch if edge.producer == SOURCE else None
        if edge.producer in by_name:
            producer = by_name[edge.producer].stage
            assert producer is not None
            whole = producer.spec.gives
        if whole is None:
            self._faults.append(f"{entry.name}: '{edge.producer}' is a sink and gives nothing")
            return None
        part = _part(whole, edge.field)
        if part is None:
            names = nearest(edge.field, typing.get_type_hints(whole))
            self._faults.append(f"{entry.name}: {whole.__name__} has no '{edge.field}' ('{edge}'), {names}")
        return part

    def _without(self, entries: Sequence[_Entry], off: frozenset[str]) -> list[_Entry]:
        """Take the stages named `off` out; their consumers take their first input where its type fits."""
        by_name = {entry.name: entry for entry in entries}
        gone = {e.name for e in entries if e.stage is not None and _reference(e.stage) in off}
        kept = []
        for entry in entries:
            if entry.name in gone:
                continue
            assert entry.stage is not None
            spec = entry.stage.spec
            inputs = []
            for i, edge in enumerate(entry.inputs):
                passed = edge
                while passed.producer in gone:
                    passed = by_name[passed.producer].inputs[0]
                if passed == edge:
                    inputs.append(edge)
                elif i < len(spec.takes):
                    found = self._given(entry, passed, by_name)
                    inputs.append(passed)
                    if found is not None and not issubclass(found, spec.takes[i]):
                        self._faults.append(f"{entry.name}: cannot go without '{edge}', which is switched off")
            kept.append(_Entry(name=entry.name, stage=entry.stage, inputs=tuple(inputs), config=entry.config))
        return kept

    def _ordered(self, entries: Sequence[_Entry]) -> Iterator[_Entry]:
        """Yield the entries so that producers come first, else in the file's order; reports cycles."""
        known = {entry.name for entry in entries}
        done: set[str] = set()
        left = list(entries)
        while left:
            ready = next(
                (e for e in left if all(i.producer in done or i.producer not in known for i in e.inputs)), None
            )
            if ready is None:
                self._faults.append(f"{', '.join(sorted(e.name for e in left))} wait for one another in a cycle")
                return
            left.remove(ready)
            done.add(ready.name)
            yield ready

    def _config(self, entry: _Entry) -> StageConfig | None:
        if entry.stage is None:
            return None
        known = {field.name for field in fields(entry.stage.Config)}
        unknown = [key for key in entry.config if key not in known]
        if unknown:
            near = (f"unknown key '{key}', {nearest(str(key), known)}" for key in unknown)
            self._faults += [f"{entry.name}: config: {text}" for text in near]
            return None
        section = getattr(self._settings, _reference(entry.stage), None)
        values = {key: getattr(section, key) for key in known if section is not None and hasattr(section, key)}
        if self._settings is not None and _reference(entry.stage) == "refine":
            values["scale"] = self._settings.enhance.scale  # that of the frames it gets
        try:
            return TypeAdapter(entry.stage.Config).validate_python({**values, **entry.config})
        except ValidationError as error:
            for fault in error.errors():
                path = ".".join(str(part) for part in fault["loc"])
                told = fault.get("ctx", {}).get("error")
                told = told.what if isinstance(told, ConfigError) else f"{fault['input']!r}: {fault['msg']}"
                self._faults.append(f"{entry.name}: config{'.' + path if path else ''}: {told}")
            return None

    def _check_weights(self, entry: _Entry, config: StageConfig) -> None:
        """A stage that needs weights finds their file; what is in it is checked when the stage opens."""
        model = getattr(config, "model", None)
        if entry.stage is None or not entry.stage.spec.models or not isinstance(model, str):
            return
        from pipeline.models import SHIPPED, model_path  # noqa: PLC0415  # graphs without networks do not wait for the stage
        from pipeline.stages.enhance import CONVENTIONAL  # noqa: PLC0415

        if model not in CONVENTIONAL and not model_path(model, getattr(config, "scale", 2)).is_file():
            shipped = nearest(model, [path.stem for path in SHIPPED.glob("*.safetensors")])
            self._faults.append(f"{entry.name}: no model '{model}', neither shipped nor a file, {shipped}")
