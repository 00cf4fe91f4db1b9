"""Learner: an F-EDSR that follows the scene. Pairs go in, models to upload come out; no clock, no process, no socket.

Theory of operation. Each pair is scored by the deployed model, the generic one and the best candidate, before anything
is trained on it. The pairs of the last second are never trained on: the candidate is judged by them, so every gain is
one on a *future* second. They join the others as newer ones come. `step` does one training step, `look` takes a pair,
`sent` takes the end of an upload; what to do then is the policy's to say (policy.py).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.optim.lr_scheduler import LinearLR

from pipeline.models.fedsr import HEAD_GAIN, TAIL_GAIN, FEdsr, input_ranges
from pipeline.publisher.monitor import Monitor, MonitorConfig, Point
from pipeline.publisher.pairs import Pair, Sample, crops
from pipeline.publisher.policy import Action, Begin, Policy, PolicyConfig, Send, Stop, Weights
from pipeline.store.keyframes import KeyFrame
from pipeline.store.modelfile import ModelHeader
from pipeline.train.losses import BORDER_PX, LOSSES, border_weight

_NS = 1_000_000_000
_ROUNDING = 1 / 12  # mean square of rounding to whole code values: no PSNR is above 59 dB
_KEY_FRAMES, _KEY_CROPS, _KEY_SIDE_PX = 2, 2, 64  # that go with a model, held out: 82 kB at scale 2
_UNSEEN_STEPS = 400  # without a new pair: what is learned then is not seen to help
_RANGED = 4  # frames whose activations widen the generic model's int8 ranges
_SAW = "frames of the stream that it enhances (its publisher's)"


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnConfig:
    """How the network is trained and judged."""

    rate: float = 1e-3  # of Adam
    warmup_steps: int = 30  # over which the rate rises
    batch: int = 8
    crop_px: int = 48  # of the low-resolution picture
    loss: str = "mse"  # what PSNR is made of; a key of LOSSES
    textured: float = 0.5  # share of crops that are the more textured of two
    average: float = 0.97  # decay of the moving average of the weights, which is what is judged and sent
    hold_s: float = 1.0  # the newest pairs, which are not trained on
    window_s: float = 20.0  # older pairs are forgotten
    seed: int = 1
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A model to upload, and held-out key frames that show what it is worth. `state` maps names to float32 arrays."""

    header: ModelHeader
    state: Mapping[str, np.ndarray]
    key_frames: tuple[KeyFrame, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What a user sees of the learner.

    Attributes:
        point: the curves at the newest pair.
        generic_db: smoothed PSNR of the generic weights there.
        training, sending: what is under way.
        steps: of this training so far; `total_steps` of all.
        gain_db: of the best candidate of this training, None before the first.
        target_db: where it stops.
        trainings: how many have begun.
        deployed: version that the service has.
        why: the last training stopped.
    """

    point: Point
    generic_db: float
    training: bool
    sending: bool
    steps: int
    total_steps: int
    gain_db: float | None
    target_db: float
    trainings: int
    deployed: int
    why: str


class _Model:
    """Weights that are only read, with a number of their own."""

    count = 0

    def __init__(self, net: FEdsr, version: int) -> None:
        _Model.count += 1
        self.id, self.net, self.version = _Model.count, net, version

    def psnr_db(self, sample: Sample) -> float:
        """Return the PSNR on a sample's strips; computed once."""
        if self.id not in sample.scores:
            sample.scores[self.id] = _psnr_db(self.net, sample)
        return sample.scores[self.id]


class Learner:
    """See the module. `net` is the generic network, folded; `predict` gives the largest gain to expect by a PSNR."""

    def __init__(self, header: ModelHeader, net: FEdsr, config: LearnConfig, predict: Callable[[float], float]) -> None:
        self._header, self._config, self._predict = header, config, predict
        self._rng = np.random.default_rng(config.seed)
        self._generic = self._deployed = _Model(net, header.version)
        self._best: _Model | None = None
        self._start = self._generic
        self._offered: _Model | None = None
        self._version = header.version
        self._net = _copy(net).train().requires_grad_(True)
        self._average = net
        self._optimizer = _optimizer(self._net, config.rate)
        self._warmup = _warmup(self._optimizer, config)
        self._samples: deque[Sample] = deque()
        self._since_s = 0.0
        self._monitor = Monitor(config.monitor)
        self._policy = Policy(config.policy)
        self._steps = self._judged_steps = self._looked_steps = self._total_steps = self._trainings = 0
        self._why = ""

    def look(self, pair: Pair) -> list[Offer]:
        """Take the next pair; return what is to be uploaded (nothing or one)."""
        sample = Sample.of(pair)
        self._samples.append(sample)
        while self._samples[0].pair.at_s < pair.at_s - self._config.window_s:
            self._samples.popleft()
        best_db = self._best.psnr_db(sample) if self._best is not None else None
        changed = self._monitor.score(pair.at_s, self._deployed.psnr_db(sample), best_db)
        since_s = self._monitor.cut_s() if changed else self._since_s
        newest = [each for each in self._held() if each.pair.at_s >= since_s] or [sample]
        deployed_db, generic_db = (
            _mean([model.psnr_db(each) for each in newest]) for model in (self._deployed, self._generic)
        )
        actions: list[Action] = []
        if self._policy.training and not changed:
            actions += self._judge(pair.at_s)
        actions += self._policy.looked(
            pair.at_s,
            deployed_db=deployed_db,
            generic_db=generic_db,
            since_s=since_s,
            changed=changed,
            expected_db=self._predict(deployed_db),
        )
        offers = self._do(actions)
        self._looked_steps = self._steps
        return offers

    def sent(self, *, accepted: bool, final: bool) -> list[Offer]:
        """Take the end of the upload: taken, refused (`final`) or not reached; return what is to be uploaded next."""
        if accepted and self._offered is not None:
            self._deployed = self._offered
        self._offered = None
        return self._do(self._policy.sent(accepted=accepted, final=final))

    @property
    def training(self) -> bool:
        """Whether a step is due. A source that is silent is not trained on for ever."""
        return self._policy.training and self._steps - self._looked_steps < _UNSEEN_STEPS

    def step(self) -> None:
        """Do one training step, if there is anything to train on."""
        samples = self._trainable()
        if not (self._policy.training and samples):
            return
        config = self._config
        cut = crops(samples, self._rng, num=config.batch, side_px=config.crop_px, textured=config.textured)
        low, base, high = (torch.from_numpy(each)[:, None].float() / 255 for each in cut)
        weight = border_weight(high.shape[-1], samples[0].pair.scale)
        loss = LOSSES[config.loss](*(each * weight for each in (base + self._net(low), high, base)))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._warmup.step()
        self._steps += 1
        self._total_steps += 1
        follow = 1 - min(config.average, self._steps / (self._steps + 10))
        with torch.no_grad():
            for kept, parameter in zip(self._average.parameters(), self._net.parameters(), strict=True):
                kept.lerp_(parameter, follow)

    def standing(self) -> Standing:
        """Return what a user sees. At least one pair has been looked at."""
        policy = self._policy
        return Standing(
            point=self._monitor.curve[-1],
            generic_db=_mean([self._generic.psnr_db(each) for each in self._held()]),
            training=policy.training,
            sending=policy.sending is not None,
            steps=self._steps,
            total_steps=self._total_steps,
            gain_db=policy.best_db,
            target_db=policy.target_db,
            trainings=self._trainings,
            deployed=self._deployed.version,
            why=self._why,
        )

    def deployed_db(self, pair: Pair) -> float:
        """Return the PSNR in dB of what the service has, as far as is known here, on a pair."""
        return self._deployed.psnr_db(Sample.of(pair))

    # --- what is trained on, and what is judged by -------------------------------------------------------------------

    def _scene(self) -> list[Sample]:
        return [each for each in self._samples if each.pair.at_s >= self._since_s]

    def _trainable(self) -> list[Sample]:
        """The scene's pairs but those of the last second; its first one in any case, or nothing would ever begin."""
        scene = self._scene()
        if not scene:
            return []
        until_s = scene[-1].pair.at_s - self._config.hold_s
        return [each for each in scene if each.pair.at_s <= until_s] or scene[:1]

    def _held(self) -> list[Sample]:
        """The pairs of the last second, which nothing was trained on; the newest at least."""
        after_s = self._samples[-1].pair.at_s - self._config.hold_s
        return [each for each in self._samples if each.pair.at_s > after_s]

    def _judge(self, at_s: float) -> list[Action]:
        """Score the candidate on what comes after all that it was trained on."""
        trained = self._trainable()
        held = [each for each in self._held() if trained and each.pair.at_s > trained[-1].pair.at_s]
        if not held or self._steps == self._judged_steps:
            return []
        self._judged_steps = self._steps
        candidate = _Model(_copy(self._average), 0)
        gain_db = _mean([candidate.psnr_db(each) - self._start.psnr_db(each) for each in held])
        actions = self._policy.judged(at_s, gain_db=gain_db, steps=self._steps)
        if self._policy.best_db == gain_db:
            self._best = candidate
        return actions

    # --- actions -----------------------------------------------------------------------------------------------------

    def _do(self, actions: list[Action]) -> list[Offer]:
        offers: list[Offer] = []
        for action in actions:
            match action:
                case Begin():
                    self._begin(action)
                case Stop():
                    self._why = action.why
                case Send():
                    offers.append(self._offer(action.what))
        return offers

    def _begin(self, action: Begin) -> None:
        self._since_s = action.since_s
        self._monitor.begin(action.since_s)
        self._start = self._generic if action.start is Weights.GENERIC else self._deployed
        self._best = None
        self._steps = self._judged_steps = self._looked_steps = 0
        self._trainings += 1
        self._net.load_state_dict(self._start.net.state_dict())
        self._average = _copy(self._start.net)
        self._optimizer = _optimizer(self._net, self._config.rate)
        self._warmup = _warmup(self._optimizer, self._config)

    def _offer(self, what: Weights) -> Offer:
        model = self._generic if what is Weights.GENERIC else self._best
        assert model is not None, "there is no best model yet"
        newest = self._samples[-1].pair
        self._version = max(self._version + 1, newest.captured_ns // _NS)  # rises over restarts too, without a file
        self._offered = _Model(model.net, self._version)
        frames = [each.pair.low for each in list(self._samples)[-_RANGED:]]
        own = input_ranges(model.net, frames)
        ranges = {
            name: (min(low, own[name][0]), max(high, own[name][1])) for name, (low, high) in self._header.ranges.items()
        } or own
        held = [each.pair for each in self._held()]
        header = ModelHeader(
            name=self._header.name,
            kind=self._header.kind,
            version=self._version,
            config=self._header.config,
            parent=f"{self._header.name}@{self._start.version}",
            trained_on=(*self._header.trained_on, _SAW),
            metrics={"gain_db": round(self._policy.best_db or 0.0, 3), "steps": float(self._steps)},
            ranges=ranges,
        )
        state = {name: tensor.detach().numpy().copy() for name, tensor in model.net.state_dict().items()}
        return Offer(
            header=header, state=state, key_frames=tuple(self._key_frame(each) for each in held[-_KEY_FRAMES:])
        )

    def _key_frame(self, pair: Pair) -> KeyFrame:
        side = min(_KEY_SIDE_PX, *pair.low.shape)
        s = pair.scale
        places = [
            tuple(int(self._rng.integers(0, length - side + 1)) for length in pair.low.shape) for _ in range(_KEY_CROPS)
        ]
        return KeyFrame(
            captured_ns=pair.captured_ns,
            low=np.stack([pair.low[y : y + side, x : x + side] for y, x in places]),
            high=np.stack([pair.high[s * y : s * (y + side), s * x : s * (x + side)] for y, x in places]),
        )


def _copy(net: FEdsr) -> FEdsr:
    out = FEdsr(net.config)
    out.load_state_dict(net.state_dict())
    return out.eval().requires_grad_(False)


def _optimizer(net: FEdsr, rate: float) -> torch.optim.Adam:
    """Return Adam with each layer's rate scaled as in the training of the generic weights, where gains did it.

    Adam moves all weights by equal steps, but the tail's are a sixteenth of the others'. Without the scaling the first
    steps undo what the network can (measured: docs/publishing.md).
    """
    gains = {"head": HEAD_GAIN, "tail": TAIL_GAIN}
    groups = [{"params": list(conv.parameters()), "lr": rate * gains.get(name, 1.0)} for name, conv in net.layers()]
    return torch.optim.Adam(groups, betas=(0.9, 0.99))


def _warmup(optimizer: torch.optim.Adam, config: LearnConfig) -> LinearLR:
    return LinearLR(optimizer, start_factor=0.05, total_iters=config.warmup_steps)


def _psnr_db(net: FEdsr, sample: Sample) -> float:
    low, base, high = sample.strips()
    with torch.inference_mode():
        residual = net(torch.from_numpy(low)[:, None].float() / 255)[:, 0].numpy()
    out = np.rint(base + residual * 255).clip(0, 255)
    border = min(BORDER_PX * sample.pair.scale, out.shape[1] // 4)
    inner = np.s_[:, border:-border, border:-border]
    return 10 * math.log10(255**2 / (float(np.square(out[inner] - high[inner]).mean()) + _ROUNDING))


def _mean(values: list[float]) -> float:
    assert values
    return sum(values) / len(values)
