"""What the flow hears (signals) and what it wants done (actions): the whole border between rules and machinery.

`Ref` is whatever the machinery uses to point at a payload: the payload itself in this process, an ObjectRef on Ray, an
int in tests. The flow never looks into it.

Order: actions are to be carried out in the order in which they are given. Calls to one box (Open, Submit) reach
its host in that order; answers may come in any order, late, twice or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.errors import LimpidError
from pipeline.flow.boxes import Box
from pipeline.wire.acks import Checkpoint
from pipeline.wire.events import Event
from pipeline.wire.ids import Span

Ref = TypeVar("Ref")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry(Generic[Ref]):
    """A payload somewhere: which units it holds, where it is, how many bytes."""

    span: Span
    ref: Ref
    nbytes: int


# --- signals -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived(Generic[Ref]):
    """The source gave a batch of packets (the answer to one Pull)."""

    entry: Entry[Ref]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceEnded:
    """The source has no more packets in this epoch (the answer to one Pull)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceLost:
    """The ingest died; outstanding pulls are void. The flow answers with OpenSource."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done(Generic[Ref]):
    """A ticket was carried out.

    Attributes:
        outputs: per exported node what it gave, in order.
        checkpoint: of a per-stream box, where a new object could start; covers this and all earlier tickets.
        ended: the box has taken the end of its input.
        reached: of a per-stream box: no frame at or behind it was met by any of its stages, or will be in what they
            have taken so far.
    """

    ticket: int
    outputs: Mapping[str, tuple[Entry[Ref], ...]] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    ended: bool = False
    reached: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A ticket raised an error. `node` names the stage where it is known.

    `fatal`: another try cannot help (storage, weights, a source that is no video): the stream fails.
    """

    ticket: int
    error: LimpidError
    node: str = ""
    fatal: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The worker that had a pooled box's ticket died."""

    ticket: int


@dataclass(frozen=True, kw_only=True, slots=True)
class HostDied:
    """The process that held a per-stream box's object of this generation died."""

    box: str
    generation: int


Signal = Arrived[Ref] | SourceEnded | SourceLost | Done[Ref] | Failed | Lost | HostDied


# --- actions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSource:
    """(Re)open the source so that the next Pull answers with the packet `packet` of epoch `epoch`."""

    epoch: int
    packet: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pull:
    """Ask the source for its next batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    """Make a per-stream box's object of this generation, restored from `checkpoint`; older ones are void.

    `set_aside`: (node, start, stop) spans of the driving input to be passed on unprocessed. `alone`: in a fresh
    process that holds nothing else.
    """

    box: Box
    generation: int
    checkpoint: Checkpoint | None
    set_aside: tuple[tuple[str, int, int], ...] = ()
    alone: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Submit(Generic[Ref]):
    """Have a box process a span.

    Attributes:
        span: units of the driving input (of a pooled box: without halo). Empty with `finish` only.
        inputs: per input of the box (in Box.inputs' order) the entries that hold the span and, for the driving input
            of a pooled box, its halo; entries may reach beyond and are to be cut.
        finish: the input ends behind this span.
        set_aside: nodes of a pooled box that pass the span on unprocessed.
        alone: in a fresh process, for it may kill it (pooled boxes).
    """

    ticket: int
    box: Box
    generation: int
    span: Span
    inputs: tuple[tuple[Entry[Ref], ...], ...]
    finish: bool = False
    set_aside: tuple[str, ...] = ()
    alone: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Release(Generic[Ref]):
    """Nobody will ask for this payload again.

    Calls that the flow has given up (of an older generation, of an epoch that is done) may still be reading it.
    """

    ref: Ref


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """Make durable, before anything that follows, that `node` passes `span` on unprocessed."""

    node: str
    span: Span


@dataclass(frozen=True, kw_only=True, slots=True)
class Save:
    """Make durable where the stream could be taken up again."""

    position: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Tell the user."""

    event: Event


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeApart:
    """A chained box keeps dying at one place: go on with single boxes from `position`, to see which stage it is."""

    position: Position


@dataclass(frozen=True, kw_only=True, slots=True)
class Fail:
    """The stream cannot go on."""

    error: LimpidError


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochDone:
    """Everything of the epoch is durable; `frames` of it."""

    epoch: int
    frames: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """The source has ended, and everything of the stream is durable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a stream can be taken up again.

    Attributes:
        epoch: that is under way.
        packet: first packet of it to be read again.
        watermark: frames [0, watermark) are durable in every sink.
        checkpoint: per node (pooled ones too) where it starts; independent of the boxes.
    """

    epoch: int
    packet: int
    watermark: int
    checkpoint: Checkpoint


Action = (
    OpenSource
    | Pull
    | Open
    | Submit[Ref]
    | Release[Ref]
    | SetAside
    | Save
    | Report
    | TakeApart
    | Fail
    | EpochDone
    | Completed
)
