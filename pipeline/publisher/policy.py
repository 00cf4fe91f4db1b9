"""When to train, from what, when to stop and what to send: rules without clock, threads or networks.

Theory of operation. Two things run beside each other. *Training* is idle or under way; *sending* is idle or under way,
never twice at a time. What happens comes in as signals, each at a moment of the stream's time; what is to be done goes
out as actions.

    looked  a pair was scored: training begins at a scene change, at the very start, and where the generic weights beat
            the deployed ones; those are sent then.
    judged  the candidate was scored on a second that comes after all it was trained on: training ends at its target,
            when nothing rises any more, or at the limit of steps; the best so far is sent where it is worth it.
    sent    an upload has ended: what is better by then is sent.

A training's gain is counted in dB above the weights that it began from, on that future second. It stops at
TH = min(THs, α · THp) (spec §1): THs is fixed, THp the largest gain to expect of this scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyConfig:
    """When training stops and what is worth sending; gains in dB."""

    fixed_gain_db: float = 1.5  # THs
    share: float = 0.9  # α of the gain to expect, below 1
    patience_s: float = 6.0  # of the stream without a better candidate, until training has nothing more to give
    rise_db: float = 0.02  # by which a candidate has to be better to count as better
    send_db: float = 0.1  # by which the best has to beat what was sent last, while training goes on
    least_db: float = 0.05  # below it a model is not worth its upload
    back_db: float = 0.05  # by which the generic weights have to beat the deployed ones to take their place
    max_steps: int = 3000  # of one training

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"α is {self.share}", where="publish", hint="a share above 0 and below 1")


class Weights(StrEnum):
    """Which weights an action is about."""

    GENERIC = "generic"
    DEPLOYED = "deployed"
    BEST = "best"


@dataclass(frozen=True, kw_only=True, slots=True)
class Begin:
    """Train on the pairs from `since_s` on, starting from `start`; what ran before is given up."""

    start: Weights
    since_s: float
    target_db: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """End the training."""

    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Send:
    """Upload these weights."""

    what: Weights


Action = Begin | Stop | Send


class Policy:
    """The state of training and sending. Each method takes a signal and returns what is to be done, in order."""

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self.training = False
        self.sending: Weights | None = None
        self.target_db = 0.0
        self.best_db: float | None = None  # gain of the best candidate of this training
        self.sent_db = 0.0  # gain of what the service has of this training
        self._offered_db = 0.0  # gain of what is under way
        self._rose_s = 0.0
        self._begun = False
        self._adapted = False  # the service has other weights than the generic ones
        self._back = False  # the generic weights are to be sent as soon as nothing is under way

    def looked(
        self, at_s: float, *, deployed_db: float, generic_db: float, since_s: float, changed: bool, expected_db: float
    ) -> list[Action]:
        """Take the smoothed scores of the newest pairs.

        Args:
            at_s: moment of the newest pair.
            deployed_db, generic_db: PSNR of both models, the same where they are one.
            since_s: where the scene begins, if it has changed.
            changed: the Monitor says that the scene has changed.
            expected_db: THp, the largest gain to expect by the deployed model's PSNR.
        """
        worse = self._adapted and not self._back and generic_db - deployed_db >= self._config.back_db
        if not (changed or worse or not self._begun):
            return []
        actions: list[Action] = []
        if worse:
            self._back = True
            actions += self._send_next()
        start = Weights.GENERIC if generic_db >= deployed_db else Weights.DEPLOYED
        self._begun = self.training = True
        self.target_db = min(self._config.fixed_gain_db, self._config.share * expected_db)
        self.best_db, self.sent_db, self._rose_s = None, 0.0, at_s
        self._offered_db = 0.0
        return [*actions, Begin(start=start, since_s=since_s, target_db=self.target_db)]

    def judged(self, at_s: float, *, gain_db: float, steps: int) -> list[Action]:
        """Take a candidate's gain on the future second, after so many steps; whoever keeps weights looks at `best_db`.

        The candidate is the best one exactly if `best_db` equals `gain_db` afterwards.
        """
        if not self.training:
            return []
        config = self._config
        if gain_db >= (0.0 if self.best_db is None else self.best_db) + config.rise_db:
            self.best_db, self._rose_s = gain_db, at_s
        why = ""
        if self.best_db is not None and self.best_db >= self.target_db:
            why = "the target is reached"
        elif at_s - self._rose_s >= config.patience_s:
            why = "nothing rises any more"
        elif steps >= config.max_steps:
            why = "the limit of steps is reached"
        actions: list[Action] = []
        if why:
            self.training = False
            actions.append(Stop(why=why))
        return actions + self._send_next()

    def sent(self, *, accepted: bool, final: bool) -> list[Action]:
        """An upload has ended: the service took it, or refused it (`final`), or could not be reached (not `final`)."""
        what, self.sending = self.sending, None
        assert what is not None, "nothing was under way"
        if what is Weights.GENERIC:
            self._back = self._back and not final
            self._adapted = self._adapted and not accepted
        elif final:
            # What was refused is not offered again: only a better one.
            self.sent_db = max(self.sent_db, self._offered_db)
            self._adapted = self._adapted or accepted
        return self._send_next()

    def _send_next(self) -> list[Action]:
        if self.sending is not None:
            return []
        if self._back:
            self.sending = Weights.GENERIC
            return [Send(what=Weights.GENERIC)]
        if self.best_db is None or self.best_db < self._config.least_db:
            return []
        more = self._config.send_db if self.training else self._config.rise_db
        if self.best_db - self.sent_db < more:
            return []
        self.sending, self._offered_db = Weights.BEST, self.best_db
        return [Send(what=Weights.BEST)]
