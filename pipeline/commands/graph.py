"""`limpid graph`: the logical graph of a configuration and the physical plan made from it, as text and as SVG."""

from __future__ import annotations

import argparse
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config import load_settings
from pipeline.errors import StorageError
from pipeline.flow.boxes import Box, groups_of, is_pooled, make_boxes
from pipeline.graph import SOURCE, Graph, Node, graph_of
from pipeline.wire.packets import PacketBatch

WIDTH_PX, HEIGHT_PX, GAP_X_PX, GAP_Y_PX, MARGIN_PX = 150, 54, 56, 26, 20
COLORS = ("#dbeafe", "#dcfce7", "#fef3c7", "#fae8ff", "#ffe4e6", "#e0f2fe", "#ecfccb", "#ede9fe")

STYLE = """<style>
text { font: 13px sans-serif; } .title { font-weight: bold; text-anchor: middle; }
.note { font-size: 11px; fill: #475569; }
.block { stroke: #475569; } .arrow { fill: none; stroke: #475569; marker-end: url(#tip); }
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#475569"/></marker></defs>"""


def main(argv: Sequence[str]) -> int:
    """Print the graph and its plan; write an SVG on request."""
    parser = argparse.ArgumentParser(prog="limpid graph", description="the logical graph and the physical plan")
    parser.add_argument("--config", type=Path, metavar="F", help="settings (YAML); its `graph:` names another graph")
    parser.add_argument("--plan", choices=("auto", "chained", "unchained"), help="the plan to show")
    parser.add_argument("--svg", type=Path, metavar="F", help="draw both into this file")
    args = parser.parse_args(argv)
    settings = load_settings(args.config, overrides={"flow.plan": args.plan} if args.plan else {})
    graph = graph_of(settings)
    boxes = make_boxes(graph, groups_of(graph, settings.flow.plan))
    print(as_text(graph, boxes, settings.flow.plan))
    if args.svg:
        try:
            args.svg.write_text(as_svg(graph, boxes), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"cannot be written: {error.strerror}", where=str(args.svg)) from error
    return 0


def as_text(graph: Graph, boxes: Sequence[Box], plan: str) -> str:
    """Return the graph, a line a stage in topological order, and the plan, a line a host process."""
    rows = [("stage", "kind", "batch", "takes", "gives")]
    rows += [(n.name, _kind(n), _batch(n), ", ".join(map(str, n.inputs)), _gives(n)) for n in graph.nodes]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"logical graph '{graph.name}'"]
    lines += ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += ["", f"physical plan '{plan}': {len(boxes)} kinds of host process"]
    for box in boxes:
        many = "a pool of workers" if box.pooled else "one a stream"
        lines.append(f"  {' → '.join(node.name for node in box.nodes)}  ({many}; takes {', '.join(box.inputs)})")
    return "\n".join(lines)


def as_svg(graph: Graph, boxes: Sequence[Box]) -> str:
    """Return a drawing: the source at the left, each stage right of what it takes from; a colour a host process."""
    color = {node.name: COLORS[i % len(COLORS)] for i, box in enumerate(boxes) for node in box.nodes}
    place = _places(graph)
    columns = max(x for x, _ in place.values()) + 1
    rows = max(y for _, y in place.values()) + 1
    width = 2 * MARGIN_PX + columns * WIDTH_PX + (columns - 1) * GAP_X_PX
    height = 2 * MARGIN_PX + rows * HEIGHT_PX + (rows - 1) * GAP_Y_PX + 18 * len(boxes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
        STYLE,
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for node in graph.nodes:
        for edge in node.inputs:
            parts.append(_arrow(place[edge.producer], place[node.name], edge.field))
    parts.append(_block(place[SOURCE], "source", PacketBatch.__name__, "#f1f5f9"))
    parts += [_block(place[n.name], n.name, f"{_kind(n)}, {_batch(n)}", color[n.name]) for n in graph.nodes]
    for i, box in enumerate(boxes):
        y = height - MARGIN_PX - 18 * (len(boxes) - 1 - i)
        names = html.escape(" → ".join(node.name for node in box.nodes))
        parts.append(f'<rect x="{MARGIN_PX}" y="{y - 11}" width="12" height="12" fill="{COLORS[i % len(COLORS)]}"/>')
        parts.append(f'<text x="{MARGIN_PX + 20}" y="{y}">a process: {names}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _kind(node: Node) -> str:
    if node.stage.spec.gives is None:
        return "sink"
    return "pooled" if is_pooled(node) else "per stream"


def _batch(node: Node) -> str:
    spec = node.stage.spec
    return "packets" if spec.takes[0] is PacketBatch else f"{spec.batch_frames} frames"


def _gives(node: Node) -> str:
    gives = node.stage.spec.gives
    return gives.__name__ if gives else "–"


def _places(graph: Graph) -> Mapping[str, tuple[int, int]]:
    """Return (column, row) of each box: columns by the longest way from the source, rows in topological order."""
    column = {SOURCE: 0}
    place = {SOURCE: (0, 0)}
    used: dict[int, int] = {0: 1}
    for node in graph.nodes:
        x = 1 + max(column[edge.producer] for edge in node.inputs)
        column[node.name] = x
        place[node.name] = (x, used.get(x, 0))
        used[x] = used.get(x, 0) + 1
    return place


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return MARGIN_PX + place[0] * (WIDTH_PX + GAP_X_PX), MARGIN_PX + place[1] * (HEIGHT_PX + GAP_Y_PX)


def _block(place: tuple[int, int], title: str, below: str, fill: str) -> str:
    x, y = _corner(place)
    middle = x + WIDTH_PX // 2
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH_PX}" height="{HEIGHT_PX}" rx="6" fill="{fill}" class="block"/>'
        f'<text x="{middle}" y="{y + 23}" class="title">{html.escape(title)}</text>'
        f'<text x="{middle}" y="{y + 41}" class="note" text-anchor="middle">{html.escape(below)}</text>'
    )


def _arrow(start: tuple[int, int], end: tuple[int, int], label: str) -> str:
    x0, y0 = _corner(start)
    x1, y1 = _corner(end)
    x0, y0, y1 = x0 + WIDTH_PX, y0 + HEIGHT_PX // 2, y1 + HEIGHT_PX // 2
    bend = x1 - GAP_X_PX // 2
    path = f'<path d="M{x0} {y0}C{bend} {y0} {bend} {y1} {x1} {y1}" class="arrow"/>'
    if label:
        path += f'<text x="{x1 - 4}" y="{y1 - 6}" class="note" text-anchor="end">{html.escape(label)}</text>'
    return path
