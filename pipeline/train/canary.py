"""The canary: weights that a publisher has pushed, tried on the key frames that it has captured last.

What is compared is what viewers would see: the networks run in the stream's own runtime (int8 too), luma only, on the
crops as the stream shows them; PSNR-Y is that of the mean squared error over all crops, without BORDER_PX pixels at
their borders. The key frames captured last stand for the seconds to come: training works on earlier ones.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ModelFormatError, ModelRejected, SignatureError
from pipeline.models import model_path
from pipeline.models.fedsr import FEdsr
from pipeline.models.load import build
from pipeline.models.runtime import RUNTIMES
from pipeline.models.runtime.library import Library, Weights
from pipeline.store import keyframes, modelfile
from pipeline.store.keyframes import KeyFrame
from pipeline.store.modelfile import ModelHeader
from pipeline.store.objects import open_store
from pipeline.train.metrics import BORDER_PX, PEAK
from pipeline.wire.frames import Size
from pipeline.wire.trials import Contest, Gain, Trial

HELD_OUT = 4  # key frames, those captured last
MOST_COST = 8.0
"""Multiplications a pixel of a pushed model, times those of the stream's generic one, at most: another size is allowed
(a scene may need more, or less), but what a stream costs was agreed on when it was admitted."""

MOST_DB = 99.0  # of planes that are equal, or nearly: JSON knows no infinity
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Canary:
    """Compares weights; remembers what is compiled, for the same crops come again and again.

    One process may compare for many streams.
    """

    def __init__(self) -> None:
        self._libraries: dict[Path, Library] = {}

    def audition(self, contest: Contest, data: bytes) -> Trial:
        """Return how the model file `data` does on a stream's key frames beside the weights in use.

        Raises:
            SignatureError: none of the stream's publishers signed it.
            ModelFormatError: it is no model file, is damaged, or of another kind, scale or size.
            ModelError: the stream's runtime cannot run it.
            ModelRejected: it is not newer than what the stream has, or there is no key frame to try it on.
            StorageError: the stream's directory cannot be read.
        """
        where = "model"
        header, state = modelfile.loads(data, where=where)
        publisher = signer(header, state, contest.keys)
        library = self._library(contest)
        net = checked(header, state, contest, cost(library.net(Weights(model=contest.generic))[1]))
        model = f"{header.name}@{header.version}"
        if header.version < contest.least_version:
            raise ModelRejected(
                f"its version is {header.version}, and the stream has had {contest.least_version - 1}",
                where=where,
                hint="give each model a higher version than the one before",
                figures={"version": header.version, "least_version": contest.least_version},
            )
        frames = keyframes.latest(open_store(contest.store), HELD_OUT, scale=contest.scale)
        if not frames:
            raise ModelRejected(
                f"there is no key frame of scale {contest.scale} to try it on",
                where=where,
                hint="send one first: PUT /v1/streams/{id}/key-frames",
            )
        # A trial's weights are known by their bytes, not by their version: another file may come with the same one.
        tried = Weights(model=model, store=f"trial {modelfile.digest(data)}")
        library.put(tried, (header, net))
        after = self._mse(library, tried, frames, contest)
        before = self._mse(library, library.weights(contest.current, contest.store), frames, contest)
        generic = self._mse(library, Weights(model=contest.generic), frames, contest)
        after_db = psnr_of(after)
        return Trial(
            model=model,
            version=header.version,
            parent=header.parent,
            publisher=publisher,
            psnr_before_db=psnr_of(before),
            psnr_after_db=after_db,
            gain_db=after_db - psnr_of(generic),
            latest_ns=frames[-1].captured_ns,
        )

    def gains(self, contest: Contest, after_ns: int) -> tuple[Gain, ...]:
        """Return what the weights in use gain over the generic ones on each key frame captured after `after_ns`.

        Of more than HELD_OUT the last. Raises as `audition`.
        """
        library = self._library(contest)
        current = library.weights(contest.current, contest.store)
        found = []
        for frame in keyframes.latest(open_store(contest.store), HELD_OUT, scale=contest.scale, after_ns=after_ns):
            ours = self._mse(library, current, [frame], contest)
            theirs = self._mse(library, Weights(model=contest.generic), [frame], contest)
            found.append(Gain(captured_ns=frame.captured_ns, gain_db=psnr_of(ours) - psnr_of(theirs)))
        return tuple(found)

    def _library(self, contest: Contest) -> Library:
        """Return the library whose generic weights are the stream's."""
        path = model_path(contest.base, contest.scale)
        if path not in self._libraries:
            library = Library("cpu")
            library.open(path)
            self._libraries[path] = library
        return self._libraries[path]

    def _mse(self, library: Library, weights: Weights, frames: Sequence[KeyFrame], contest: Contest) -> float:
        """Return the mean squared error over all crops, square code values."""
        total, count = 0.0, 0
        for frame in frames:
            size = Size(width_px=frame.low.shape[2], height_px=frame.low.shape[1])
            engine = library.engine(weights, size, contest.runtime, contest.threads)
            error_NHW = _inner(frame.high).astype(np.float32) - _inner(engine.upscale(frame.low))
            total += float(np.square(error_NHW, dtype=np.float64).sum())
            count += error_NHW.size
        return total / count


def signer(header: ModelHeader, state: Mapping[str, Tensor], keys: Mapping[str, str]) -> str:
    """Return the id of the publisher whose key signed a model. Raises SignatureError."""
    if not keys:
        raise SignatureError(
            "nobody may sign models of this stream", where="model", hint="register a publisher: POST /v1/publishers"
        )
    refused: SignatureError | None = None
    for publisher, key in keys.items():
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key))
        try:
            modelfile.check_signature(header, state, public, where="model")
        except SignatureError as error:
            refused = error
        else:
            return publisher
    assert refused is not None
    raise refused


def checked(header: ModelHeader, state: Mapping[str, Tensor], contest: Contest, generic_cost: float) -> FEdsr:
    """Return the network of a model file, folded, if it may enhance a stream.

    Raises:
        ModelFormatError: it has another kind, scale or size than it may, or no ranges where the runtime needs them.
    """
    if not _NAME.fullmatch(header.name):
        _refuse(f"its name is {header.name!r}", "use a-z, 0-9, '.', '_' and '-'")
    if header.kind != FEdsr.kind:
        _refuse(f"it is of the kind '{header.kind}'", f"send a model of the kind '{FEdsr.kind}'")
    net = build(header, state, where="model").fold()
    if net.config.scale != contest.scale:
        _refuse(f"it up-scales by {net.config.scale}, and the stream by {contest.scale}", "train it for that scale")
    share = cost(net) / generic_cost
    if share > MOST_COST:
        _refuse(
            f"it takes {share:.1f} times the multiplications of the stream's generic model",
            f"{MOST_COST:g} times are the limit: train a smaller one",
        )
    missing = [name for name, _ in net.layers() if name not in header.ranges]
    if RUNTIMES[contest.runtime].int8 and missing:
        _refuse(
            f"it gives no range for the input of '{missing[0]}', and the stream runs in {contest.runtime}",
            "write the ranges into the file, or run the stream with enhance.runtime openvino-fp32",
        )
    return net


def cost(net: FEdsr) -> float:
    """Return a folded network's multiplications a pixel of what comes in."""
    return sum(conv.weight.numel() for _, conv in net.layers()) / net.config.unshuffle**2


def psnr_of(mse: float) -> float:
    """Return 10·log10(255² / `mse`) in dB, at most MOST_DB."""
    return min(MOST_DB, 10 * math.log10(PEAK**2 / mse)) if mse else MOST_DB


def _inner(planes_NHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return planes_NHW[:, BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]


def _refuse(what: str, hint: str) -> NoReturn:
    raise ModelFormatError(what, where="model", hint=hint)
