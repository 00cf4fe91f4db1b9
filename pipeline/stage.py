"""What a stage is: its facts as data (`StageSpec`) and the two kinds of work it can do.

A *pooled* stage is stateless: any worker may do any batch, in any order, and the same work gives the same bytes.
A *per-stream* stage has one object per stream and epoch and sees its input in order, each unit once; after a crash
another object is restored from a snapshot and fed from `Snapshot.resume_from` on. A *sink* is a per-stream stage that
gives nothing and makes things durable.

Example, a whole pooled stage:

    @dataclass(frozen=True, kw_only=True, slots=True)
    class BrightnessConfig(StageConfig):
        gain: float = 1.0  # in (0, 4]

    class Brightness(PooledStage[BrightnessConfig, FrameBatch, FrameBatch]):
        spec = StageSpec(name="brightness", version=1, takes=(FrameBatch,), gives=FrameBatch)
        Config = BrightnessConfig

        def process(self, work: Work[FrameBatch]) -> FrameBatch: ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from pipeline.wire.acks import Snapshot, Stamp
from pipeline.wire.ids import Span, StreamId


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one worker of a stage occupies; fractions are legal."""

    cpus: float = 1.0
    gpus: float = 0.0
    gpu_memory_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSpec:
    """A stage's facts.

    Attributes:
        name: as in graphs, metrics and manifests.
        version: raised when output changes; kept in manifests.
        takes: types of the inputs; the first drives, the others are joined to it by frame.
        optional: further inputs by type that a graph may connect or leave out.
        gives: type of the output; None for a sink.
        batch_frames: frames a call; a driving input of packets comes as it is.
        halo_frames: frames of the driving input that the flow supplies before and after the batch.
        resources: of one worker.
        latency_target_s: service time a batch that the stage aims at; planning uses it.
        models: kinds of weights it needs.
    """

    name: str
    version: int
    takes: tuple[type, ...]
    gives: type | None
    optional: tuple[type, ...] = ()
    batch_frames: int = 8
    halo_frames: tuple[int, int] = (0, 0)
    resources: Resources = field(default_factory=Resources)
    latency_target_s: float = 0.1
    models: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StageConfig:
    """Base of a stage's settings: frozen, checked in __post_init__ (ConfigError), YAML keys are its fields."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageEnv:
    """Where a stage object lives.

    Attributes:
        device: torch's name of the device, "cpu" or "cuda:0".
        threads: that the stage may use for itself.
        stream, epoch: of a per-stream stage's object; None for pooled stages.
        store: URL or path of the stream's directory; "" for pooled stages.
        batch_frames: of the stage in its graph: who makes frames gives so many at a time.
    """

    device: str = "cpu"
    threads: int = 1
    stream: StreamId | None = None
    epoch: int = 0
    store: str = ""
    batch_frames: int = 8


ConfigT = TypeVar("ConfigT", bound=StageConfig)
InT = TypeVar("InT")
OutT = TypeVar("OutT")


@dataclass(frozen=True, kw_only=True, slots=True)
class Work(Generic[InT]):
    """One call's input.

    Attributes:
        item: the driving input.
        span: the frames (or packets) asked for: item's span.
        side: the other inputs in the order of the graph's edges, each cut to item's frames.
        before, after: the halo: neighbouring frames of the driving input, None where there are none (the epoch's ends).
        stamp: what decides the output beside the input.
        store: URL or path of the stream's directory, where weights of its own lie; "" where there is none.
        generation: of the try; a new one at each, old ones write nothing durable.
    """

    item: InT
    span: Span
    side: tuple[Any, ...] = ()
    before: InT | None = None
    after: InT | None = None
    stamp: Stamp = field(default_factory=Stamp)
    store: str = ""
    generation: int = 0


class Stage(ABC, Generic[ConfigT]):
    """What both kinds share. Construction is cheap and does no I/O; `open` may be slow."""

    spec: ClassVar[StageSpec]
    Config: ClassVar[type[StageConfig]] = StageConfig

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    def open(self, env: StageEnv) -> None:
        """Get ready: device, weights, store. Raises ModelError or StorageError."""
        self.env = env

    def stamp(self) -> Stamp:
        """Return what this (opened) stage chose at `open` and what decides its bytes: model, runtime, threads.

        Asked once when a stream begins; the answer is durable, goes with all of the stream's work, and is repeated by
        every later run of it.
        """
        return Stamp()

    def close(self) -> None:
        """Let go of everything, in bounded time; safe after a failed open."""


class PooledStage(Stage[ConfigT], Generic[ConfigT, InT, OutT]):
    """Stateless: any worker, any order; the same work gives the same bytes."""

    @abstractmethod
    def process(self, work: Work[InT]) -> OutT:
        """Return the output for `work`; its span is `work.span`. Raises StageError."""

    def prepare(self, stamp: Stamp, *, store: str) -> None:
        """Get ready for work with a stamp that is to come, of the stream whose directory is `store`.

        Called in another thread than `process`, which goes on meanwhile; work with that stamp may come all the same.
        """

    def bypass(self, work: Work[InT]) -> OutT:
        """Return what stands in for the output when the batch kills whoever processes it.

        A stage that cannot pass work on unprocessed leaves this as it is: the stream then fails with the stage's error.
        """
        raise NoBypass(self.spec.name)


MOST_HELD = 32
"""Frames that a decoder may have taken and not given."""


class StreamStage(Stage[ConfigT], Generic[ConfigT, InT, OutT]):
    """One object per stream and epoch; input in order, each unit once."""

    @abstractmethod
    def process(self, work: Work[InT]) -> Sequence[OutT]:
        """Take the next input; return what is ready: outputs tile the frames, may lag, never skip."""

    @abstractmethod
    def finish(self) -> Sequence[OutT]:
        """Take the end of the epoch: return (or make durable) what was held back."""

    def held(self) -> int:
        """Return how many frames may still come of the packets taken so far, at most; asked of who makes frames."""
        return MOST_HELD

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Return the state behind the last input processed that a new object can start from."""

    @abstractmethod
    def restore(self, snapshot: Snapshot) -> None:
        """Become the object that `snapshot` was taken from; called once, after open, before the first process."""

    def bypass(self, work: Work[InT]) -> Sequence[OutT]:
        """Pass over an input that kills whoever processes it, as PooledStage.bypass does."""
        raise NoBypass(self.spec.name)


class NoBypass(Exception):
    """A stage cannot pass work on unprocessed (`args[0]` names it)."""
