"""Enhance: every frame up-scaled by F-EDSR, luma by the network and chroma conventionally."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import cv2

from pipeline.errors import ConfigError, ModelError
from pipeline.models import FAMILY, model_path
from pipeline.models.runtime import check_name
from pipeline.models.runtime.choose import choose
from pipeline.models.runtime.library import Library
from pipeline.stage import PooledStage, Resources, StageConfig, StageEnv, StageSpec, Work
from pipeline.vision.upscale import empty_like, upscale, upscale_chroma
from pipeline.wire.acks import CONVENTIONAL_RUNTIME, Stamp
from pipeline.wire.frames import FrameBatch, Size

CONVENTIONAL = ("none", CONVENTIONAL_RUNTIME)
"""Names of "no model", in `EnhanceConfig.model`."""

NUM_STREAMS = 256  # whose frame size is remembered, to get ready for weights that are to come
TRIAL_SIZE = Size(width_px=320, height_px=180)  # what "auto" is measured on: the choice is the worker's, not a stream's


@dataclass(frozen=True, kw_only=True, slots=True)
class EnhanceConfig(StageConfig):
    """How frames are enhanced."""

    scale: int = 2  # 2, 3 or 4; a model has one
    model: str = FAMILY  # or a shipped model's name, or a model file's path; "none" or "bicubic": conventional only
    runtime: str = "auto"  # what runs the network: "auto" (measured at start-up), or a name of models.runtime.RUNTIMES
    threads: int = 0  # of the network; 0: as many as the worker has

    def __post_init__(self) -> None:
        if type(self.scale) is not int or not 2 <= self.scale <= 4:
            raise ConfigError(f"scale is {self.scale!r}", where="enhance.scale", hint="use 2, 3 or 4")
        if type(self.threads) is not int or not 0 <= self.threads <= 256:
            raise ConfigError(
                f"threads is {self.threads!r}", where="enhance.threads", hint="use 0 (the worker's) to 256"
            )
        if self.runtime not in ("auto", CONVENTIONAL_RUNTIME):
            check_name(self.runtime)


class Enhance(PooledStage[EnhanceConfig, FrameBatch, FrameBatch]):
    """Frames `scale` times as large, in YUV 4:2:0, of exactly s·W × s·H pixels; all else of the batch is kept."""

    spec = StageSpec(
        name="enhance",
        version=1,
        takes=(FrameBatch,),
        gives=FrameBatch,
        batch_frames=8,
        resources=Resources(cpus=1),
        latency_target_s=0.2,
        models=("f-edsr",),
    )
    Config = EnhanceConfig

    def open(self, env: StageEnv) -> None:
        """Load the weights and choose the runtime.

        Raises:
            ModelError, Unreachable: the model cannot be read or is of another scale.
        """
        super().open(env)
        self._library = Library(env.device)
        self._sizes: OrderedDict[str, Size] = OrderedDict()  # of the frames of a stream, by its store
        self._stamp = Stamp(runtime=CONVENTIONAL_RUNTIME, threads=self.config.threads or env.threads)
        cv2.setNumThreads(env.threads)
        if self.config.model in CONVENTIONAL or self.config.runtime == CONVENTIONAL_RUNTIME:
            return
        path = model_path(self.config.model, self.config.scale)
        header, net = self._library.open(path)
        if net.config.scale != self.config.scale:
            raise ModelError(
                f"the model up-scales by {net.config.scale}, not by {self.config.scale}",
                where=str(path),
                hint=f"set enhance.scale to {net.config.scale}, or enhance.model to {FAMILY}",
            )
        runtime, threads = self.config.runtime, self._stamp.threads
        if runtime == "auto":
            runtime = choose(net, TRIAL_SIZE, device=env.device, threads=threads, ranges=header.ranges)
        self._stamp = Stamp(model=self._library.generic, runtime=runtime, threads=threads)

    def stamp(self) -> Stamp:
        """Return what this worker would use for work that brings no stamp: model, runtime and threads.

        Workers of one pool may have measured differently: the flow asks one of them once and stamps all work with it.
        """
        return self._stamp

    def process(self, work: Work[FrameBatch]) -> FrameBatch:
        """Return the batch up-scaled, by what the stamp names, else by what was chosen at `open`.

        Raises:
            ModelError: the stamp names weights that are neither the generic ones nor in the stream's directory.
        """
        batch = work.item
        stamp = work.stamp if work.stamp.runtime else self._stamp
        self._sizes[work.store] = batch.size
        self._sizes.move_to_end(work.store)
        if len(self._sizes) > NUM_STREAMS:
            self._sizes.popitem(last=False)
        if stamp.runtime == CONVENTIONAL_RUNTIME:
            return upscale(batch, self.config.scale)
        weights = self._library.weights(stamp.model, work.store)
        engine = self._library.engine(weights, batch.size, stamp.runtime, stamp.threads)
        out = empty_like(batch, self.config.scale)
        engine.upscale(batch.planes().y, out.planes().y)
        upscale_chroma(batch, self.config.scale, out)
        return out

    def prepare(self, stamp: Stamp, *, store: str) -> None:
        """Load the weights that a stamp names, and compile them for the size that the stream's frames had last.

        Raises:
            ModelError, StorageError: they cannot be read, or the runtime cannot run them.
        """
        weights = self._library.weights(stamp.model, store)
        size = self._sizes.get(store)
        if size is None:
            self._library.net(weights)
        else:
            self._library.prepare(weights, size, stamp.runtime, stamp.threads)

    def bypass(self, work: Work[FrameBatch]) -> FrameBatch:
        """Return the bicubic up-scale."""
        return upscale(work.item, self.config.scale)

    def close(self) -> None:
        """Let go of the compiled networks."""
        self._library.close()
