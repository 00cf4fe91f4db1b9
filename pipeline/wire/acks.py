"""What goes with work and what comes back with it: stamps, snapshots, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CONVENTIONAL_RUNTIME = "bicubic"
"""A stamp's runtime where no network enhances."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamp:
    """All that decides a stage's bytes beside its input: chosen once, durable before use, repeated on every retry.

    Attributes:
        model: version of the weights ("f-edsr-x2@1"), "" where there are none.
        runtime: what runs them ("openvino-int8"), "" where nothing does.
        threads: of the runtime and the encoder; other counts give other bytes.
        set_aside: names of the stages that must pass this work on unprocessed (a poison batch).
        lighter: names of the stages that do it with less effort (the overload ladder).
    """

    model: str = ""
    runtime: str = ""
    threads: int = 1
    set_aside: tuple[str, ...] = ()
    lighter: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A per-stream stage's state behind frame `after` − 1, and where its input must start again.

    Attributes:
        after: frames [0, after) are behind it. For a sink: they are durable.
        resume_from: first unit of the driving input to feed a restored stage; for decode a packet number (a
            random-access point before the packet of frame `after`), else a frame number ≤ `after` (mostly equal).
        state: what `restore` takes; small.
    """

    after: int
    resume_from: int
    state: bytes = b""


Schedule = tuple[tuple[int, Stamp], ...]
"""What decides the bytes of an epoch's frames: (first frame, stamp) by rising frame, the first one 0."""


def stamp_at(schedule: Schedule, seq: int) -> Stamp:
    """Return the stamp that holds for a frame."""
    return next(stamp for first, stamp in reversed(schedule) if first <= seq)


Checkpoint = Mapping[str, Snapshot]
"""The snapshots of a box's per-stream stages by stage name, taken at one consistent cut (flow/cut.py)."""
