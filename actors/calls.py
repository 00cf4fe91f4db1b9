"""What a supervisor says to a host and what comes back.

Orders and replies travel as bytes made by `pickle`: Ray's own serializer looks at every object in Python, which at
several thousand small objects a second costs more than the calls. Stage classes travel by name.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.slab import Block
from pipeline.config import SourceSettings
from pipeline.errors import LimpidError
from pipeline.flow.boxes import Box
from pipeline.graph import Graph
from pipeline.stage import StageEnv
from pipeline.wire.acks import Checkpoint, Schedule, Stamp
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import Codec
from pipeline.wire.status import Gap, SourceState
from pipeline.wire.trials import Contest, Gain, Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """An item in shared memory: its pickle (arrays left out), and where the arrays' bytes are.

    `head` is b"" where the pickle itself is large: it is the first block then.
    """

    head: bytes
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """An item in Ray's object store: which of the call's payloads (of a reply: returns), and which item of it."""

    payload: int
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lent:
    """An input of a call: where it is, and the number under which it is given back."""

    loan: int
    where: Parcel | Slot


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """An output of a call."""

    span: Span
    nbytes: int
    where: Parcel | Slot


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """What a process is pinned to: a share of one of Ray's resources ("GPU", or a custom one); by default nothing."""

    resource: str = ""
    share: float = 0.0

    @property
    def torch(self) -> str:
        """Torch's name of it: Ray lets a process see only the GPUs that it was given."""
        return "cuda:0" if self.resource == "GPU" else "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenBox:
    """Make a box's stages ready; `stream` None is a pooled box, whose `key` tells one configuration from another."""

    key: str
    box: Box
    env: StageEnv
    stream: StreamId | None = None
    generation: int = 0
    checkpoint: Checkpoint | None = None
    schedule: Schedule = ((0, Stamp()),)
    set_aside: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkOn:
    """Process a span with the box of `key` (of `stream` and `generation`, if it is no pooled one).

    `schedule`: of the epoch; a pooled box goes by what it says of the span's first frame. `store`: the stream's.
    """

    key: str
    stream: StreamId | None
    generation: int
    span: Span
    inputs: tuple[tuple[Lent, ...], ...]
    finish: bool
    schedule: Schedule
    store: str = ""
    set_aside: tuple[str, ...] = ()
    free: tuple[Block, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenUri:
    """Read a stream's source from (epoch, packet) on."""

    stream: StreamId
    uri: str
    settings: SourceSettings
    epoch: int
    packet: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOn:
    """Give the source's next batch of packets; see PacketReader.next."""

    stream: StreamId
    free: tuple[Block, ...] = ()
    pace_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Close:
    """Let go of all that belongs to a stream."""

    stream: StreamId


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """Belong to this supervisor: forget what an earlier one had here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warm:
    """Import modules while there is nothing else to do."""

    modules: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choose:
    """Say what the graph's networks run fastest in here, and which weights they are."""

    graph: Graph
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepare:
    """Get a box ready for a stamp that is to come, in a thread beside its work; asked again until the reply says so.

    `key`, `stream`: of the box, as in WorkOn. `store`: of the stream whose stamp it is.
    """

    key: str
    stream: StreamId | None
    store: str
    stamp: Stamp


@dataclass(frozen=True, kw_only=True, slots=True)
class Audition:
    """Try a model file, which is the call's payload, on a stream's key frames."""

    contest: Contest


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """Say what the weights in use gain on the key frames that were captured after `after_ns`."""

    contest: Contest
    after_ns: int


Order = OpenBox | WorkOn | OpenUri | ReadOn | Close | Hello | Warm | Choose | Prepare | Audition | Measure


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came of an order.

    Attributes:
        outputs: per exported node what it gave (of ReadOn: under "source").
        checkpoint, ended: as in flow.signals.Done; ended without outputs is the source's end.
        video: of an epoch's first packets.
        error, node, fatal: as in flow.signals.Failed.
        returned: loans of which nothing is looked at any more.
        pid: of the process.
        reads: of Hello: the live streams whose source the process holds open.
        stamp: of Choose.
        ready: of Prepare: nothing is to be waited for any more.
        trial, gains: of Audition and Measure.
        reached: as in flow.signals.Done.
        source: of ReadOn: how the source is doing; without outputs, nothing came for a while.
        gap: of an epoch's first packets: what is missing before them.
        frames: of ReadOn: pictures that came; of WorkOn: frames that the box's last stage is done with.
        captured_ns: Unix time at which the last of them arrived; 0 where there is none.
        service_s, cpu_s: that the process has worked for it.
    """

    outputs: Mapping[str, tuple[Sent, ...]] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    ended: bool = False
    video: Codec | None = None
    error: LimpidError | None = None
    node: str = ""
    fatal: bool = False
    returned: tuple[int, ...] = ()
    pid: int = 0
    reads: tuple[StreamId, ...] = ()
    stamp: Stamp | None = None
    ready: bool = True
    trial: Trial | None = None
    gains: tuple[Gain, ...] = ()
    source: SourceState | None = None
    gap: Gap | None = None
    reached: int = 0
    frames: int = 0
    captured_ns: int = 0
    service_s: float = 0.0
    cpu_s: float = 0.0


def bare(error: LimpidError) -> LimpidError:
    """Return an error as it is sent: without its traceback, whose frames would keep a call's arrays alive."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def packed(message: object) -> bytes:
    """Return a message as bytes."""
    return pickle.dumps(message, protocol=5)


def unpacked(data: bytes) -> Any:
    """Return the message that `packed` made; only ever of processes of our own."""
    return pickle.loads(data)
