"""Original: the source's own picture as a rendition of its own, for those who want to see what has changed.

Browsers cannot open most sources (RTSP, RTMP), nor line them up with the output frame by frame. This is the same
encoder, on the decoded frames, at little effort and high quality: hls/input/, on the output's timeline.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.stage import Resources, StageSpec
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.wire.frames import FrameBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginalConfig(EncodeConfig):
    """Settings of the source's picture; the same as encode's, with other defaults."""

    crf: float = 18.0
    """x264's quality: low, so that the encoder is not what one compares."""
    preset: str = "ultrafast"
    """x264's effort: the least, the picture is small."""


class Original(Encode):
    """Decoded frames → H.264 in hls/input/ and live/input/."""

    view = "input"
    spec = StageSpec(
        name="original",
        version=1,
        takes=(FrameBatch,),
        gives=None,
        batch_frames=8,
        resources=Resources(cpus=0.25),
        latency_target_s=0.05,
    )
    Config = OriginalConfig
