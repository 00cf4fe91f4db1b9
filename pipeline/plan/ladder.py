"""The overload ladder of one live stream: how light its work is made while it lags (design.md, Overload ladder).

Theory of operation. *Up* (lighter) when the lag has been above its target for `over_s`, at once when it is above twice
the target; then the lag is given `shown_s` to show what the rung does before another one is taken. *Down* (back) a rung
after the lag has been below half of the target for the rung's hold time, and if there is room. A stream that takes it
again within `trial_s` was not able to do without: each such failure doubles the rung's hold time, up to `hold_max_s`,
so that a stream that is too large for its machine tries seldom; once a try has lasted, it is the first one again. Until
then a lag that comes near the target ends it: nobody should see that it was made.

The lag is what was measured at the output, or what the backlog will come to at the stream's own rate: that is known
earlier, and it is known when nothing comes out at all. Only the measured lag moves the ladder at once: a playlist's
segment arrives as a backlog of seconds, and is worked off before it matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from pipeline.errors import ConfigError


class Rung(IntEnum):
    """How light the work is made; each includes those before it. Frames of the output are never dropped."""

    FULL = 0
    FEWER_REFINED = 1  # refining picks fewer frames and regions
    SPARSER_SCENE = 2  # the scene network looks at every n-th frame
    LIGHTER_MODEL = 3  # a lighter model enhances
    BICUBIC = 4  # no network enhances
    LIGHTER_ENCODE = 5  # the encoder searches less: about a tenth more bits for the same picture


@dataclass(frozen=True, kw_only=True, slots=True)
class LadderRule:
    """When to climb and when to come back.

    Attributes:
        target_s: the lag that is to be kept, seconds (slo.max_lag_s).
        rungs: those that do something in this stream's graph, rising from FULL.
        over_s: for so long above the target until a rung is taken.
        shown_s: after a rung is taken until another one may be: what waited is worked off, and out of the lags.
        at_once: times the target above which it is taken at once, > 1.
        at_once_on_trial: … while the stream tries to do without it, between `under` and `at_once`.
        under: times the target below which the stream counts as well, < 1.
        hold_s: for so long well until a rung is given back, at first.
        hold_max_s: … and at most.
        trial_s: so long without a rung until giving it back counts as a success.
    """

    target_s: float = 1.0
    rungs: tuple[Rung, ...] = (Rung.FULL, Rung.BICUBIC)
    over_s: float = 1.0
    shown_s: float = 3.0
    at_once: float = 2.0
    at_once_on_trial: float = 0.8
    under: float = 0.5
    hold_s: float = 5.0
    hold_max_s: float = 320.0
    trial_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.rungs or self.rungs[0] != Rung.FULL or list(self.rungs) != sorted(set(self.rungs)):
            raise ConfigError(f"rungs are {self.rungs!r}", where="ladder.rungs", hint="let them rise from 0")
        limits = (0, self.under, self.at_once_on_trial, self.at_once)
        if list(limits) != sorted(set(limits)) or not self.under < 1 < self.at_once or self.hold_s > self.hold_max_s:
            raise ConfigError(
                "its limits contradict each other",
                where="ladder",
                hint="0 < under < at_once_on_trial < at_once, under < 1 < at_once, hold_s ≤ hold_max_s",
            )
        if min(self.target_s, self.over_s, self.shown_s, self.hold_s, self.trial_s) <= 0:
            raise ConfigError("a time is not above 0", where="ladder", hint="use seconds above 0")


class Ladder:
    """The rung of one stream; `step` it a few times a second.

    Args:
        rule: its limits.
        rung: where to begin: FULL, or the one that admission found to fit, or the last one's after a restart.
    """

    def __init__(self, rule: LadderRule, rung: Rung = Rung.FULL) -> None:
        self._rule = rule
        self._index = max(i for i, each in enumerate(rule.rungs) if each <= rung)
        self._holds_s = [rule.hold_s for _ in rule.rungs]
        self._over_since_s: float | None = None
        self._well_since_s: float | None = None
        self._climbed_s: float | None = None
        self._back_s: list[float | None] = [None for _ in rule.rungs]  # when given back, not proved unneeded yet
        self.changes = 0

    @property
    def rung(self) -> Rung:
        """The rung that new work is done at."""
        return self._rule.rungs[self._index]

    @property
    def hold_s(self) -> float:
        """Seconds that the stream must be well until its rung (or the first one) is given back."""
        return self._holds_s[self._index or 1]

    def step(
        self,
        lag_p95_s: float,
        backlog_frames: int,
        now_s: float,
        *,
        fps: float = 0.0,
        may_return: bool = True,
        give: bool = False,
    ) -> Rung:
        """Return the rung for work that begins now.

        Args:
            lag_p95_s: from a frame's arrival to the output's file, over the last seconds (2, say); 0: not measured.
            backlog_frames: that have arrived and are not in the output's file.
            now_s: seconds of any steady clock.
            fps: frames a second that arrive; 0: not known, the backlog is then not judged.
            may_return: there is room for heavier work (pipeline.plan.admit.may_return); else the rung is kept.
            give: another stream needs the cores (pipeline.plan.turns.giver): take a rung, however small the lag is.
        """
        rule = self._rule
        lag_s = max(lag_p95_s, backlog_frames / fps if fps > 0 else 0.0)
        self._over_since_s = _since(lag_s > rule.target_s, self._over_since_s, now_s)
        self._well_since_s = _since(lag_s < rule.under * rule.target_s, self._well_since_s, now_s)
        for i, back_s in enumerate(self._back_s):
            if back_s is not None and now_s - back_s >= max(rule.trial_s, self._holds_s[i]):
                self._back_s[i], self._holds_s[i] = None, rule.hold_s

        shown, lasting = self._shown(now_s), self._lasting(now_s)
        lightest = self._is_lightest
        on_trial = not lightest and self._back_s[self._index + 1] is not None
        at_once_s = rule.target_s * (rule.at_once_on_trial if on_trial else rule.at_once)
        if (lasting or lag_p95_s > at_once_s or give) and shown and not lightest:
            self._climb(now_s)
        elif self.is_well(now_s) and may_return:
            self._come_back(now_s)
        return self.rung

    def is_well(self, now_s: float) -> bool:
        """Say whether the stream has been well for so long that it may go back a rung if there is room."""
        return self._index > 0 and self._well_since_s is not None and now_s - self._well_since_s >= self.hold_s

    def is_late(self, now_s: float) -> bool:
        """Say whether the stream has been late for so long that it would take a rung if there were one."""
        return self._is_lightest and self._shown(now_s) and self._lasting(now_s)

    def can_give(self, now_s: float) -> bool:
        """Say whether there is a rung left, and the last one has shown what it does."""
        return not self._is_lightest and self._shown(now_s)

    @property
    def _is_lightest(self) -> bool:
        return self._index == len(self._rule.rungs) - 1

    def _shown(self, now_s: float) -> bool:
        return self._climbed_s is None or now_s - self._climbed_s >= self._rule.shown_s

    def _lasting(self, now_s: float) -> bool:
        return self._over_since_s is not None and now_s - self._over_since_s >= self._rule.over_s

    def _climb(self, now_s: float) -> None:
        self._index += 1
        if self._back_s[self._index] is not None:
            self._holds_s[self._index] = min(2 * self._holds_s[self._index], self._rule.hold_max_s)
            self._back_s[self._index] = None
        self._climbed_s = now_s
        self._over_since_s = None
        self.changes += 1

    def _come_back(self, now_s: float) -> None:
        self._back_s[self._index] = now_s
        self._index -= 1
        self._well_since_s = None
        self.changes += 1


def _since(holds: bool, since_s: float | None, now_s: float) -> float | None:
    if not holds:
        return None
    return now_s if since_s is None else since_s
