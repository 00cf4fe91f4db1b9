"""The shipped graph with an encoder that takes several times as long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.stage import Work
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.wire.frames import FrameBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowConfig(EncodeConfig):
    times: float = 10.0  # as long as Encode takes


class SlowEncode(Encode):
    """Encodes as Encode does, then waits."""

    Config = SlowConfig

    def process(self, work: Work[FrameBatch]) -> Sequence[None]:
        began = time.monotonic()
        out = super().process(work)
        assert isinstance(self.config, SlowConfig)
        time.sleep((self.config.times - 1) * (time.monotonic() - began))
        return out


def slow_graph(times: float) -> str:
    """Return the YAML of a graph whose encoder takes `times` as long."""
    return f"""name: slow
stages:
  - {{stage: decode, after: source}}
  - {{stage: enhance, after: decode}}
  - {{stage: guard, after: [enhance, decode]}}
  - {{stage: "flow_peers.slow:SlowEncode", name: encode, after: guard.frames, config: {{times: {times}}}}}
  - {{stage: quality, after: decode}}
  - {{stage: record, after: [decode, quality, guard.report]}}
"""
