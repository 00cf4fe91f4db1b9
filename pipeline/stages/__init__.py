"""The boxes of the drawing, one file each.

                packets           frames                    sharper frames
    source ─┬────────────► decode ──┬──► enhance ─► refine ─► guard ──┬──► encode ──► hls/
            │                       │    (F-EDSR)   (TCSR)    ▲       │
            │                       ├─────────────────────────┘       │ what refine and guard did
            │                       ├──► quality ──┐                  │
            │                       ├──────────────┴──────────────► record ──► tables/
            │                       └──► original ──► hls/input/   (only with outputs.original)
            ├────────────► audio ──► hls/
            └────────────► packets ──► packets/   (only with outputs.packets)

refine is there only with a refine.budget. Analysis works on the source's frames; enhancement does not wait for it.
encode, original, audio, packets and record are sinks.
"""

from __future__ import annotations

from collections.abc import Mapping

FLOW: Mapping[str, str] = {
    "decode": "pipeline.stages.decode:Decode",
    "enhance": "pipeline.stages.enhance:Enhance",
    "refine": "pipeline.stages.refine:Refine",
    "guard": "pipeline.stages.guard:Guard",
    "encode": "pipeline.stages.encode:Encode",
    "original": "pipeline.stages.original:Original",
    "audio": "pipeline.stages.audio:Audio",
    "packets": "pipeline.stages.packets:Packets",
    "quality": "pipeline.stages.quality:Quality",
    "record": "pipeline.stages.record:Record",
}
"""The built-in stages in the order of the flow: name -> module:Class, imported only when a graph names it."""
