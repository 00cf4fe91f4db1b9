"""What a user asks the service for: the body of `POST /v1/streams`, and the job's settings that follow from it.

Only what works today is a field: an unknown one is refused, with the nearest known name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from pipeline.config import Settings, SlateText

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]


WINDOW_S = 300.0
"""Seconds that a live stream's playlist reaches back where the request does not say."""


class Part(BaseModel):
    """Base of all parts of a request: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reconnect(Part):
    """How a live source that has gone is tried again: after `initial_s`, then twice as long each time, with jitter."""

    initial_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    max_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    attempts: Annotated[int, Field(ge=-1, le=1_000_000)] = -1
    """Tries in a row until the stream fails; −1: without end."""


class Slate(Part):
    """A card that is shown while a live source is away, so that the output goes on: a text, in silence."""

    after_s: Annotated[float, Field(gt=0, le=600)] = 2.0
    """Seconds without a packet until it is shown (of HLS, which comes in bursts, three segments at least)."""
    text: SlateText = "No signal"


class SourceRequest(Part):
    """Where the video comes from."""

    uri: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]
    mode: Literal["auto", "live", "file"] = "auto"
    """live: it passes whether it is read or not, and is opened again when it ends; file: it waits, and its end is the
    stream's. auto: rtmp, rtsp, udp, tcp and playlists without an end are live, all else is a file."""
    reconnect: Reconnect = Reconnect()
    slate: Slate | None = None
    """Not given: what the service does, which is nothing by itself."""


class EnhanceRequest(Part):
    """The clearer picture."""

    enabled: bool = True
    network: bool = True
    """Whether the network enhances; without it pictures are up-scaled conventionally, at a fifth of the cost."""
    scale: Annotated[int, Field(ge=2, le=4)] = 2
    refine_budget: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the frames, 0 to 1, that TCSR refines by their neighbours; only at scale 2."""


class HlsRequest(Part):
    """The HLS output."""

    segment_s: Annotated[float, Field(gt=0, le=30)] = 2.0
    window_s: Annotated[float | None, Field(ge=0, le=31_536_000)] = None
    """Seconds that playlist and segments reach back; 0: to the start. Not given: 300 of a live stream, 0 of a file."""


class OutputsRequest(Part):
    """What is kept."""

    hls: HlsRequest = HlsRequest()
    original: bool = False
    """The source's own picture as a rendition beside the output, to compare with (`hls/input`)."""
    packets: bool = False


class SloRequest(Part):
    """What the stream is to keep."""

    max_lag_s: Annotated[float, Field(gt=0, le=600)] = 1.0
    """Seconds from a frame's arrival until it is in the output's file; above it, work is made lighter."""


class StreamRequest(Part):
    """A stream that the service is to run."""

    id: Id | None = None
    labels: Annotated[dict[Label, Label], Field(max_length=32)] = {}
    source: Annotated[SourceRequest, BeforeValidator(lambda value: {"uri": value} if isinstance(value, str) else value)]
    enhance: EnhanceRequest = EnhanceRequest()
    outputs: OutputsRequest = OutputsRequest()
    slo: SloRequest = SloRequest()
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """Where cores are short, streams of low priority are made lighter first and go back last."""

    def settings(self, base: Settings, *, live: bool) -> Settings:
        """Return the job's settings: the service's own, with what this request says put in.

        Args:
            base: of the service.
            live: the source passes whether it is read or not.
        """
        hls = self.outputs.hls
        window_s = hls.window_s if hls.window_s is not None else WINDOW_S if live else 0.0
        values: dict[str, Any] = base.to_dict()
        values["source"] |= {
            "mode": self.source.mode,
            "reconnect_initial_s": self.source.reconnect.initial_s,
            "reconnect_max_s": self.source.reconnect.max_s,
            "reconnect_attempts": self.source.reconnect.attempts,
        }
        if self.source.slate is not None:
            values["source"] |= {"slate_after_s": self.source.slate.after_s, "slate_text": self.source.slate.text}
        values["enhance"] |= {"enabled": self.enhance.enabled, "scale": self.enhance.scale}
        values["refine"]["budget"] = self.enhance.refine_budget
        if not self.enhance.network:
            values["enhance"]["model"] = "bicubic"
        values["audio"] |= {"segment_s": hls.segment_s, "keep_s": window_s}
        for video in ("encode", "original"):
            values[video] |= {"segment_s": hls.segment_s, "keep_s": window_s, "live": live and not _remote(base)}
        values["outputs"] |= {"original": self.outputs.original, "packets": self.outputs.packets}
        values["live"] |= {"max_lag_s": self.slo.max_lag_s, "priority": self.priority}
        return Settings.from_dict(values, where="request")


def _remote(base: Settings) -> bool:
    """Say whether the service's store is no directory: the live view needs one."""
    return "://" in base.service.store
