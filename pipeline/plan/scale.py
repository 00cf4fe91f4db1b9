"""How many workers a pooled stage wants: a pure function of its load, so that a simulator can drive it.

The rule (design.md, Scaling): ⌈(arrival + backlog ÷ drain) × service ÷ ρ⌉, ρ the target utilisation. Around it:

- *Up* at once, but the backlog counts only while every worker that was asked for is there: those that start take
  seconds, and what piles up meanwhile would ask for them a second time.
- *Age*: where the oldest batch has waited for more than half of the latency target for a second although the formula is
  content (bursts, uneven batches), one worker more; then again when that one has had a second.
- *Down* one at a time, after `quiet_s` in which one worker less would have been enough with room to spare (the demand
  at (1 − `slack`) of the target utilisation): a load that wavers about a border changes nothing.
- A lowering that has to be taken back soon makes the next quiet period twice as long (up to 8 times), until one holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pipeline.errors import ConfigError
from pipeline.plan.load import StageLoad

_LATE_S = 1.0  # for so long a batch's age must threaten the target; and that a new worker has to show what it does
_NEXT_S = 2.0  # between two lowerings of one quiet period
_MOST_REGRETS = 3
_TOLERANCE = 0.03  # of the workers, by which the demand may be above them: no measurement is better than that


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleRule:
    """What scaling of one stage aims at; where a user may change it: `PATCH /v1/stages/{name}`.

    Attributes:
        target_utilisation: share of a worker's time that is to be used, (0, 1].
        drain_s: seconds in which a backlog is to be worked off.
        latency_s: seconds from asking to answer that are to be kept.
        quiet_s: seconds of lower demand before a worker is given back.
        slack: share of the demand that must be spare before one is.
        min, max: workers, 0 ≤ min ≤ max, 1 ≤ max.
    """

    target_utilisation: float = 0.7
    drain_s: float = 3.0
    latency_s: float = 0.5
    quiet_s: float = 10.0
    slack: float = 0.15
    min: int = 1
    max: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.target_utilisation <= 1:
            raise ConfigError(
                f"target_utilisation is {self.target_utilisation!r}", where="stage", hint="use a share above 0, up to 1"
            )
        if not 0 <= self.min <= self.max or self.max < 1:
            raise ConfigError(
                f"min is {self.min!r} and max is {self.max!r}", where="stage", hint="use 0 ≤ min ≤ max, and max ≥ 1"
            )
        for name in ("drain_s", "latency_s", "quiet_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}", where="stage", hint="use seconds above 0")
        if not 0 <= self.slack < 1:
            raise ConfigError(f"slack is {self.slack!r}", where="stage", hint="use a share from 0 to below 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleState:
    """What the rule remembers of a stage; `ScaleState()` of one that is new.

    Attributes:
        wanted: workers asked for; −1: none yet.
        low_since_s: since when one less would have been enough; None: it would not.
        late_since_s: since when the oldest batch's age threatens the target with all workers there; None: it does not.
        raised_s, lowered_s: when the last changes were.
        regrets: lowerings in a row that had to be taken back.
    """

    wanted: int = -1
    low_since_s: float | None = None
    late_since_s: float | None = None
    raised_s: float = -math.inf
    lowered_s: float = -math.inf
    regrets: int = 0


def scale(load: StageLoad, rule: ScaleRule, state: ScaleState, now_s: float) -> tuple[int, ScaleState, str]:
    """Return the workers that the stage wants, what to remember, and why the number changed ("" if it did not).

    Call it about once a second, or as often as you like; the answer does not depend on how often.
    """
    held = min(max(load.workers if state.wanted < 0 else state.wanted, rule.min), rule.max)
    demand, backlog = _demand(load, rule)
    starting = load.workers < held
    need = demand if starting else demand + backlog
    threatened = load.queue_age_s > rule.latency_s / 2
    # A worker that has just come is given its second as well: the time counts from when all were there.
    late_since_s = _since(threatened and not starting, state.late_since_s, now_s)
    state = replace(state, wanted=held, late_since_s=late_since_s)

    wanted = min(_ceil(need), rule.max)
    if wanted > held and need > held * (1 + _TOLERANCE):
        return _raised(wanted, state, rule, now_s, _figures(load, rule))
    if late_since_s is not None and now_s - max(late_since_s, state.raised_s) >= _LATE_S and held < rule.max:
        return _raised(
            held + 1, state, rule, now_s, f"the oldest batch waits {load.queue_age_s:.2f} of {rule.latency_s:.2f} s"
        )

    enough = (demand + backlog) / (1 - rule.slack)
    low = held > rule.min and _ceil(enough) < held and not threatened
    low_since_s = _since(low, state.low_since_s, now_s)
    regrets = state.regrets
    if regrets and now_s - max(state.lowered_s, state.raised_s) > 2 * _quiet_s(rule, regrets):
        regrets = 0
    state = replace(state, low_since_s=low_since_s, regrets=regrets)
    quiet_s = _quiet_s(rule, regrets)
    if low_since_s is None or now_s - low_since_s < quiet_s or now_s - state.lowered_s < min(_NEXT_S, quiet_s):
        return held, state, ""
    state = replace(state, wanted=held - 1, lowered_s=now_s)
    return held - 1, state, f"one less is enough since {now_s - low_since_s:.0f} s"


def _demand(load: StageLoad, rule: ScaleRule) -> tuple[float, float]:
    """Return the workers that arrivals want, and those that the backlog wants besides."""
    if load.service_s <= 0:
        # Nothing is known of it but that there is work: one worker finds out.
        return (1.0, 0.0) if load.arrival_hz > 0 or load.queue else (0.0, 0.0)
    arrivals = load.arrival_hz * load.service_s / rule.target_utilisation
    # One batch for each worker is on its way to it, not behind.
    waiting = max(load.queue - max(load.workers, 1), 0)
    if load.queue and not load.workers:
        arrivals = max(arrivals, 1.0)
    return arrivals, waiting / rule.drain_s * load.service_s / rule.target_utilisation


def _raised(wanted: int, state: ScaleState, rule: ScaleRule, now_s: float, why: str) -> tuple[int, ScaleState, str]:
    soon = now_s - state.lowered_s < 2 * _quiet_s(rule, state.regrets) and state.lowered_s > state.raised_s
    regrets = min(state.regrets + 1, _MOST_REGRETS) if soon else state.regrets
    return wanted, replace(state, wanted=wanted, low_since_s=None, raised_s=now_s, regrets=regrets), why


def _quiet_s(rule: ScaleRule, regrets: int) -> float:
    return rule.quiet_s * float(2**regrets)


def _since(holds: bool, since_s: float | None, now_s: float) -> float | None:
    if not holds:
        return None
    return now_s if since_s is None else since_s


def _ceil(workers: float) -> int:
    """Round up; what floating point adds to a whole number is no further worker."""
    return math.ceil(workers - 1e-9)


def _figures(load: StageLoad, rule: ScaleRule) -> str:
    return (
        f"{load.arrival_hz:.1f} batches a second of {load.service_s:.3f} s, {load.queue} wait, "
        f"{load.workers} workers, {load.busy:.1f} busy, to be used to {rule.target_utilisation:.0%}"
    )
