"""Pairs of key frames: what a frame truly was, and what the stream shows in its place."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.upscale import bicubic

_STRIPS = 3
_STRIP_SHARE = 9  # each strip is a ninth of the frame, so that a third of it is looked at
_LEAST_STRIP_PX = 32

Plane = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One key frame, luma only.

    Attributes:
        at_s: moment in the stream, seconds since it began; rises from pair to pair.
        captured_ns: Unix time of capture.
        low: (h, w) uint8 as decoded from the very packets that are pushed.
        high: (s·h, s·w) uint8, the true picture.
    """

    at_s: float
    captured_ns: int
    low: Plane
    high: Plane

    @property
    def scale(self) -> int:
        """s."""
        return int(self.high.shape[0]) // int(self.low.shape[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A pair that is trained on and judged by, with its bicubic up-scale (s·h, s·w) and the scores known of it.

    `scores` maps the identity of weights (whoever made them counts them) to the PSNR in dB on `strips`.
    """

    pair: Pair
    base: Plane
    scores: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, pair: Pair) -> Sample:
        """Return the sample of a pair that is not scored yet."""
        return cls(pair=pair, base=bicubic(pair.low, pair.scale))

    def strips(self) -> tuple[Plane, Plane, Plane]:
        """Return low (3, p, w), base and high (3, s·p, s·w): the strips of the frame that models are scored on.

        Strips cost a third of the frame, and rather than tiles leave little of it to borders.
        """
        height, s = self.pair.low.shape[0], self.pair.scale
        side = min(height, max(_LEAST_STRIP_PX, height // _STRIP_SHARE))
        tops = [round(i * (height - side) / (_STRIPS - 1)) for i in range(_STRIPS)]
        low = np.stack([self.pair.low[top : top + side] for top in tops])
        base, high = (
            np.stack([plane[s * top : s * (top + side)] for top in tops]) for plane in (self.base, self.pair.high)
        )
        return low, base, high


def crops(
    samples: list[Sample], rng: np.random.Generator, *, num: int, side_px: int, textured: float
) -> tuple[Plane, Plane, Plane]:
    """Cut `num` random crops: low (num, p, p), base and high (num, s·p, s·p), all turned or mirrored alike.

    Of two candidates the one with more texture is taken, with the probability `textured`.
    """
    lows: list[Plane] = []
    bases: list[Plane] = []
    highs: list[Plane] = []
    for chosen in rng.integers(0, len(samples), num):
        sample = samples[chosen]
        low, s = sample.pair.low, sample.pair.scale
        side = min(side_px, *low.shape)
        places = [tuple(int(rng.integers(0, length - side + 1)) for length in low.shape) for _ in range(2)]
        if rng.random() < textured:
            places.sort(key=lambda place: -float(low[place[0] :, place[1] :][:side, :side].std()))
        y, x = places[0]
        lows.append(low[y : y + side, x : x + side])
        for out, plane in ((bases, sample.base), (highs, sample.pair.high)):
            out.append(plane[s * y : s * (y + side), s * x : s * (x + side)])
    stacks = [np.stack(each) for each in (lows, bases, highs)]
    if rng.random() < 0.5:  # lying and hanging pictures are rare in video: mirrored sideways only
        stacks = [np.ascontiguousarray(each[:, :, ::-1]) for each in stacks]
    return stacks[0], stacks[1], stacks[2]
