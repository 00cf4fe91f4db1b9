"""Networks and engines that are ready, for many streams in one process: generic weights, and weights of streams' own.

A stream's stamps name weights by "name@version". They are the generic ones, which the process was opened with, or lie
in the stream's directory (`pipeline.store.modelhistory`). Engines are made for one network, frame size, runtime and
thread count; the least recently used ones go where there are too many. `prepare` makes one beside those in use: it may
be called in another thread than all else, and does not keep it waiting.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ModelError, NotFound
from pipeline.models.runtime import Engine, open_engine
from pipeline.models.runtime.engine import WINDOW_PX
from pipeline.store.modelhistory import weights_name
from pipeline.store.objects import open_store
from pipeline.wire.frames import Size

if TYPE_CHECKING:
    from pipeline.models.fedsr import FEdsr
    from pipeline.store.modelfile import ModelHeader

NUM_ENGINES = 32
ENGINES_PX = 4 * WINDOW_PX
"""Of their windows together: four engines of 1080p, or NUM_ENGINES of 360p; about a GB on a CPU."""

NUM_NETS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Which weights: `model` as in stamps; `store`: of the stream whose own they are, "" for the generic ones."""

    model: str
    store: str = ""


Loaded = tuple["ModelHeader", "FEdsr"]
_Key = tuple[Weights, Size, str, int]


class Library:
    """What is ready in this process.

    Args:
        device: torch's name of it.

    Attributes:
        generic: name@version of the weights that are no stream's own; "" before `open`.
    """

    def __init__(self, device: str) -> None:
        self.generic = ""
        self._device = device
        self._nets: OrderedDict[Weights, Loaded] = OrderedDict()
        self._generic: Loaded | None = None
        self._engines: OrderedDict[_Key, Engine] = OrderedDict()
        self._lock = threading.Lock()  # of the two tables; never held while something is loaded or compiled

    def open(self, path: Path) -> Loaded:
        """Load the generic weights; return them, folded.

        Raises:
            ModelError, Unreachable: they cannot be read.
        """
        from pipeline.models.load import load_model  # noqa: PLC0415  # PyTorch; see pipeline.models

        header, net = load_model(path)
        self._generic = header, net.fold()
        self.generic = f"{header.name}@{header.version}"
        return self._generic

    def weights(self, model: str, store: str) -> Weights:
        """Return which weights a stamp of the stream in `store` names; "" is the generic ones."""
        return Weights(model=self.generic) if model in ("", self.generic) else Weights(model=model, store=store)

    def net(self, weights: Weights) -> Loaded:
        """Return a network, loading it if it is a stream's own and was not used lately.

        Raises:
            ModelError: there are no such weights, or they are damaged.
            StorageError: they cannot be read.
        """
        if not weights.store:
            if self._generic is None or weights.model != self.generic:
                raise ModelError(
                    f"the stamp asks for the model '{weights.model}', loaded is '{self.generic}'",
                    where="enhance",
                    hint="replay with the weights that the manifest names",
                )
            return self._generic
        with self._lock:
            found = self._nets.get(weights)
            if found is not None:
                self._nets.move_to_end(weights)
                return found
        found = _read(weights)
        self.put(weights, found)
        return found

    def put(self, weights: Weights, loaded: Loaded) -> None:
        """Have a folded network that was loaded already."""
        with self._lock:
            self._nets[weights] = loaded
            while len(self._nets) > NUM_NETS:
                self._nets.popitem(last=False)

    def engine(self, weights: Weights, size: Size, runtime: str, threads: int) -> Engine:
        """Return an engine, which only the calling thread may run.

        Raises:
            ModelError, StorageError: as `net`; or the runtime cannot run it.
        """
        key = (weights, size, runtime, threads)
        with self._lock:
            found = self._engines.get(key)
            if found is not None:
                self._engines.move_to_end(key)
                return found
        return self._made(key)

    def prepare(self, weights: Weights, size: Size, runtime: str, threads: int) -> None:
        """Make an engine and run it once, so that its first frame takes no longer than any. Raises as `engine`."""
        key = (weights, size, runtime, threads)
        with self._lock:
            if key in self._engines:
                return
        self._made(key, warm=True)

    def __len__(self) -> int:
        """Engines that are ready."""
        return len(self._engines)

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._engines.clear()
            self._nets.clear()
        self._generic = None

    def _made(self, key: _Key, *, warm: bool = False) -> Engine:
        weights, size, runtime, threads = key
        header, net = self.net(weights)
        engine = open_engine(runtime, net, size, device=self._device, threads=threads, ranges=header.ranges)
        if warm:
            engine.upscale(np.zeros((1, size.height_px, size.width_px), np.uint8))
        with self._lock:
            self._engines[key] = engine
            self._engines.move_to_end(key)
            while len(self._engines) > 1 and (len(self._engines) > NUM_ENGINES or self._pixels() > ENGINES_PX):
                self._engines.popitem(last=False)
        return engine

    def _pixels(self) -> int:
        return sum(e.window.width_px * e.window.height_px for e in self._engines.values())


def _read(weights: Weights) -> Loaded:
    from pipeline.models.load import build  # noqa: PLC0415  # as above
    from pipeline.store import modelfile  # noqa: PLC0415

    name = weights_name(weights.model)
    where = f"{weights.store}/{name}"
    try:
        data = open_store(weights.store).get(name)
    except NotFound as error:
        raise ModelError(
            f"the stamp asks for the model '{weights.model}', which is not there",
            where=where,
            hint="put the file back: without it these frames cannot be made again",
        ) from error
    header, state = modelfile.loads(data, where=where)
    if f"{header.name}@{header.version}" != weights.model:
        raise ModelError(
            f"it holds '{header.name}@{header.version}', the stamp asks for '{weights.model}'",
            where=where,
            hint="put the right file back",
        )
    return header, build(header, state, where=where).fold()
