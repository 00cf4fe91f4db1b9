"""Whether a further stream fits: its CPU cost predicted from what is known of it, before anything of it runs.

Cost = frames a second × milliseconds a frame, summed over the parts of the flow, each linear in the pixels it touches:
COSTS, measured. A live stream fits if, at its lightest rung, that is no more than the room: the cluster's cores times
SHARE, less what each running stream takes. Those already running are left alone: a new stream begins at the first rung
that fits (`starting_rung`), and one that was made lighter goes back only into room (`may_return`). A file waits for its
turn: a little room is enough.

Other machines, pictures and presets cost differently. So where the use of running streams has been measured, it counts
instead of the prediction, and their ratio of measured to predicted use corrects the prediction for the new one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pipeline.plan.ladder import Rung
from pipeline.wire.status import Capacity, StageStatus, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """CPU milliseconds of one part of the flow: fixed_ms a frame + ms_per_mpx a million pixels of `of`."""

    of: str  # "source" or "output"
    fixed_ms: float
    ms_per_mpx: float
    measured: str


COSTS = {
    "decode": Cost(
        of="source",
        fixed_ms=0.25,
        ms_per_mpx=2.6,
        measured="H.264 at 1/3/5 Mbit/s: 360p 0.84, 720p 2.7, 1080p 5.6 ms, one thread",
    ),
    "enhance": Cost(
        of="source",
        fixed_ms=0.5,
        ms_per_mpx=57.0,
        measured="enhance_2core-x86_2026-11-26: F-EDSR ×2, openvino-int8: 180p 3.73, 360p 13.49 ms",
    ),
    "refine": Cost(
        of="output",
        fixed_ms=0.0,
        ms_per_mpx=258.0,
        measured="tcsr_2core-x86_2026-11-26: 63.26 ms less F-EDSR's 3.89 at 360p, every frame",
    ),
    "bicubic": Cost(
        of="output",
        fixed_ms=0.1,
        ms_per_mpx=1.1,
        measured="enhance_2core-x86_2026-11-26: luma 180p 0.26, 360p 0.75 ms; × 1.5 for chroma",
    ),
    "guard": Cost(of="output", fixed_ms=0.0, ms_per_mpx=2.9, measured="endtoend_2core-x86_2026-11-26: 2.68 ms at 720p"),
    "encode": Cost(
        of="output",
        fixed_ms=0.0,
        ms_per_mpx=6.0,
        measured="endtoend_2core-x86_2026-11-26: superfast, 5.56 ms at 720p",
    ),
    "quality": Cost(
        of="source", fixed_ms=0.0, ms_per_mpx=3.1, measured="endtoend_2core-x86_2026-11-26: 0.71 ms at 360p"
    ),
    "record": Cost(
        of="source", fixed_ms=0.2, ms_per_mpx=0.0, measured="endtoend_2core-x86_2026-11-26: with the source"
    ),
    "moving": Cost(
        of="output",
        fixed_ms=0.0,
        ms_per_mpx=5.4,
        measured="endtoend_2core-x86_2026-11-26: unchained, 26.96 − 21.99 ms of all stages at 720p",
    ),
}
"""By part; results in benchmarks/results, on cores of an x86 server with AVX-512."""

RUNTIMES = {"auto": 1.0, "openvino-int8": 1.0, "openvino-fp32": 3.4, "onnx": 3.1, "pytorch": 3.8}
"""The network's cost by what runs it, ÷ openvino-int8's; enhance_2core-x86_2026-11-26, 360p. auto: the fastest."""

LIGHTER_ENCODE = 0.75
"""The encoder's cost at that rung; measured at 720p beside superfast: 5.9 of 7.9 ms for 10 % more bits."""

ASSUMED = (640, 360, 25.0)
"""Width, height, frames a second of a stream that has not been looked at; ask again when they are known."""

SHARE = 0.9
"""Of the cores, that streams may take: the rest is for the service, and for a frame that is dearer than the mean."""

KEPT_IDLE = 0.05
"""Of the cores, measured: what is left idle when a stream goes back to heavier work. Less than 1 - SHARE, for what is
measured need not be guessed, and a try that fails costs little (ladder.py)."""

FILE_CPUS = 0.25
"""Cores that a file or recorded source needs at least: it takes what is left, and waits."""

RETRY_S = 15.0
"""After which a refused stream may be asked for again: streams end, and clusters grow, without notice."""

_CORRECTION = (0.25, 4.0)  # within which running streams correct a prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is known of a stream that is to run.

    Attributes:
        width, height, fps: of the source; 0: not known yet, ASSUMED counts.
        live: it cannot wait.
        scale: output ÷ source; 1 where it is not enhanced.
        network: a network enhances, at rung FULL.
        refined: share of the frames that a second one refines, there too.
        runtime: what runs it, a key of RUNTIMES.
        analyse: its quality is measured.
        rungs: that its graph has.
    """

    width: int = 0
    height: int = 0
    fps: float = 0.0
    live: bool = True
    scale: int = 2
    network: bool = True
    refined: float = 0.0
    runtime: str = "auto"
    analyse: bool = True
    rungs: tuple[Rung, ...] = (Rung.FULL, Rung.BICUBIC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A stream that runs.

    Attributes:
        wanted: what is known of it.
        rung: it is at.
        measured_cpus: cores that it has used over the last seconds; None: not measured yet, or not in a steady state.
    """

    wanted: Wanted
    rung: Rung = Rung.FULL
    measured_cpus: float | None = None


def cost_ms(wanted: Wanted, rung: Rung) -> float:
    """Return the CPU milliseconds a frame of a stream at a rung."""
    source_mpx = (wanted.width or ASSUMED[0]) * (wanted.height or ASSUMED[1]) / 1e6
    output_mpx = source_mpx * wanted.scale**2
    names = ["decode", "encode", "record", "moving"]
    if wanted.analyse:
        names.append("quality")
    times = 1.0
    if wanted.network and rung < Rung.BICUBIC:
        names += ["enhance", "guard", "refine"]
        times = RUNTIMES.get(wanted.runtime, max(RUNTIMES.values()))
    elif wanted.scale > 1:
        names.append("bicubic")

    def of(name: str) -> float:
        cost = COSTS[name]
        ms = cost.fixed_ms + cost.ms_per_mpx * (source_mpx if cost.of == "source" else output_mpx)
        if name == "encode" and rung >= Rung.LIGHTER_ENCODE:
            ms *= LIGHTER_ENCODE
        if name == "refine":
            ms *= wanted.refined
        return ms * times if name == "enhance" else ms

    return sum(map(of, names))


def cpus(wanted: Wanted, rung: Rung) -> float:
    """Return the cores that a stream is predicted to take at a rung, at its own rate; of a file what it needs."""
    if not wanted.live:
        return FILE_CPUS
    return (wanted.fps or ASSUMED[2]) * cost_ms(wanted, rung) / 1000


def capacity_of(
    cluster_cpus: float, gpus: float, running: Sequence[Running], *, idle_cpus: float | None = None
) -> Capacity:
    """Return what the cluster has and what a further stream may take of it.

    Args:
        cluster_cpus: cores.
        gpus: whole ones.
        running: all that run.
        idle_cpus: cores that have nothing to do, where that is measured: a camera's encoder beside us, a browser, our
            own calls and copies are in no stream's use. What files take counts as idle: they give way.
    """
    used = [each.measured_cpus for each in running if each.measured_cpus is not None]
    room = SHARE * cluster_cpus - sum(_taken(each) for each in running)
    if idle_cpus is not None:
        files = sum(each.measured_cpus or 0.0 for each in running if not each.wanted.live)
        room = min(room, idle_cpus + files - KEPT_IDLE * cluster_cpus)
    return Capacity(
        cpus=cluster_cpus,
        gpus=gpus,
        used_cpus=round(sum(used), 3),
        streams=len(running),
        room_cpus=round(max(room, 0.0), 3),
    )


def admit(
    wanted: Wanted,
    capacity: Capacity,
    running: Collection[Running],
    *,
    stages: Collection[StageStatus] = (),
    max_streams: int = 1000,
) -> Verdict:
    """Say whether a stream fits beside those that run, with figures in words.

    Args:
        wanted: the stream.
        capacity: of `capacity_of`, with the same `running`.
        running: all that run.
        stages: the pools; a live stream that would ask more of one than it may grow to does not fit.
        max_streams: that may run at a time.
    """
    rung = _lightest(wanted)
    need = round(cpus(wanted, rung) * correction(running), 3)
    room = capacity.room_cpus
    if len(running) >= max_streams:
        reason = f"{len(running)} streams run, and {max_streams} may"
        return Verdict(fits=False, wanted_cpus=need, room_cpus=room, reason=reason, retry_after_s=RETRY_S)
    full = next((why for stage in stages if (why := _full(stage))), "") if wanted.live else ""
    if full:
        return Verdict(fits=False, wanted_cpus=need, room_cpus=room, reason=full, retry_after_s=RETRY_S)
    if not wanted.live:
        words = f"a file needs {need:.2f} cores and waits where there are not more"
    else:
        words = f"{_picture(wanted)} needs {need:.2f} cores{' without the network' if wanted.network else ''}"
    have = f"{room:.2f} of {capacity.cpus:.1f} are free beside {len(running)} running streams"
    if need <= room:
        return Verdict(fits=True, wanted_cpus=need, room_cpus=room, reason=f"{words}, {have}")
    if need > SHARE * capacity.cpus:
        have = f"the whole cluster has {capacity.cpus:.1f}, of which streams may take {SHARE * capacity.cpus:.2f}"
    return Verdict(fits=False, wanted_cpus=need, room_cpus=room, reason=f"{words}, {have}", retry_after_s=RETRY_S)


def _full(stage: StageStatus) -> str:
    """Return why a pool has no room for a stream more like those that it has; "" where it has."""
    if not stage.streams or stage.service_s <= 0:
        return ""
    demand = stage.arrival_hz * stage.service_s / stage.target_utilisation
    more = demand * (stage.streams + 1) / stage.streams
    if more <= stage.max:
        return ""
    asked = f"{stage.streams} streams ask for {demand:.1f} workers of the stage '{stage.name}'"
    return f"{asked}, one more would make it {more:.1f}, and it may have {stage.max}"


def cluster_cpus(running: Collection[Running], refused_cpus: float) -> int:
    """Return the cores that a cluster should have for what runs and what was refused lately: an autoscaler's aim."""
    return math.ceil((sum(_taken(each) for each in running) + refused_cpus) / SHARE - 1e-9)


def starting_rung(wanted: Wanted, capacity: Capacity, running: Collection[Running]) -> Rung:
    """Return the first rung at which a stream fits, its lightest one if none does: where its ladder is to begin."""
    factor = correction(running)
    fitting = (rung for rung in wanted.rungs if cpus(wanted, rung) * factor <= capacity.room_cpus)
    return next(fitting, _lightest(wanted))


def may_return(wanted: Wanted, rung: Rung, capacity: Capacity, running: Collection[Running]) -> bool:
    """Say whether there is room for what a running stream takes more one rung further down.

    Ask for one stream at a time, and let it show its use (some seconds) before the next: each sees the same room.
    """
    below = max((each for each in wanted.rungs if each < rung), default=rung)
    more = cpus(wanted, below) - cpus(wanted, rung)
    return more * correction(running) <= capacity.room_cpus


def correction(running: Collection[Running]) -> float:
    """Return measured ÷ predicted use of the live streams whose use is measured, within limits; 1 where none is."""
    known = [each for each in running if each.wanted.live and each.measured_cpus is not None]
    predicted = sum(cpus(each.wanted, each.rung) for each in known)
    if not predicted:
        return 1.0
    measured = math.fsum(each.measured_cpus or 0.0 for each in known)
    return min(max(measured / predicted, _CORRECTION[0]), _CORRECTION[1])


def _taken(each: Running) -> float:
    """Return the cores that are another stream's no more: a file gives way, a live stream does not."""
    if each.measured_cpus is None or not each.wanted.live:
        return cpus(each.wanted, each.rung)
    return each.measured_cpus


def _lightest(wanted: Wanted) -> Rung:
    return max(wanted.rungs) if wanted.live else Rung.FULL


def _picture(wanted: Wanted) -> str:
    width, height, fps = wanted.width or ASSUMED[0], wanted.height or ASSUMED[1], wanted.fps or ASSUMED[2]
    assumed = " (assumed)" if not (wanted.width and wanted.height and wanted.fps) else ""
    return f"{width}×{height} at {fps:.4g} frames a second{assumed}"
