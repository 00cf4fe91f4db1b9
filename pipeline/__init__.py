"""Limpid: a sharper HLS stream and data out of every live video, as a scalable dataflow on Ray.

This package is the pure part: what moves, the stages, networks and rules; no Ray, no HTTP server. `actors` carries it
out on Ray. The names below are imported when they are first used, so `import pipeline` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Settings, load_settings
    from pipeline.errors import LimpidError
    from pipeline.flow.job import Job, Outcome, Progress
    from pipeline.flow.local import run_local
    from pipeline.graph import Edge, Graph, Node, graph_of, load_graph
    from pipeline.stage import PooledStage, Resources, StageConfig, StageEnv, StageSpec, StreamStage, Work
    from pipeline.wire.acks import Snapshot, Stamp
    from pipeline.wire.frames import ColorSpec, FrameBatch, Size
    from pipeline.wire.ids import Span, StreamId, stream_id
    from pipeline.wire.packets import Codec, Packet, PacketBatch
    from pipeline.wire.results import GuardReport, GuardResult, QualityReport, RefineReport, RefineResult

__all__ = [
    "Codec",
    "ColorSpec",
    "Edge",
    "FrameBatch",
    "Graph",
    "GuardReport",
    "GuardResult",
    "Job",
    "LimpidError",
    "Node",
    "Outcome",
    "Packet",
    "PacketBatch",
    "PooledStage",
    "Progress",
    "QualityReport",
    "RefineReport",
    "RefineResult",
    "Resources",
    "Settings",
    "Size",
    "Snapshot",
    "Span",
    "StageConfig",
    "StageEnv",
    "StageSpec",
    "Stamp",
    "StreamId",
    "StreamStage",
    "Work",
    "graph_of",
    "load_graph",
    "load_settings",
    "run_local",
    "stream_id",
]

_HOME = {
    "pipeline.config": ("Settings", "load_settings"),
    "pipeline.errors": ("LimpidError",),
    "pipeline.flow.job": ("Job", "Outcome", "Progress"),
    "pipeline.flow.local": ("run_local",),
    "pipeline.graph": ("Edge", "Graph", "Node", "graph_of", "load_graph"),
    "pipeline.stage": ("PooledStage", "Resources", "StageConfig", "StageEnv", "StageSpec", "StreamStage", "Work"),
    "pipeline.wire.acks": ("Snapshot", "Stamp"),
    "pipeline.wire.frames": ("ColorSpec", "FrameBatch", "Size"),
    "pipeline.wire.ids": ("Span", "StreamId", "stream_id"),
    "pipeline.wire.packets": ("Codec", "Packet", "PacketBatch"),
    "pipeline.wire.results": ("GuardReport", "GuardResult", "QualityReport", "RefineReport", "RefineResult"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
