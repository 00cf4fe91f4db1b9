"""Enhance: every frame up-scaled by F-EDSR, luma by the network and chroma conventionally."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from pipeline.errors import ConfigError, ModelError
from pipeline.models import SHIPPED
from pipeline.models.runtime import Engine, check_name, open_engine
from pipeline.models.runtime.choose import choose
from pipeline.stage import PooledStage, Resources, StageConfig, StageEnv, StageSpec, Work
from pipeline.vision.upscale import empty_like, upscale, upscale_chroma
from pipeline.wire.acks import CONVENTIONAL_RUNTIME, Stamp
from pipeline.wire.frames import FrameBatch, Size

if TYPE_CHECKING:
    from pipeline.models.fedsr import FEdsr
    from pipeline.store.modelfile import ModelHeader

FAMILY = "f-edsr"
"""Name of the shipped model of whatever scale is asked for, in `EnhanceConfig.model`."""

CONVENTIONAL = ("none", CONVENTIONAL_RUNTIME)
"""Names of "no model", in `EnhanceConfig.model`."""

NUM_ENGINES = 4  # ready at a time, one a frame size: streams of several sizes share a worker
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
        self._engines: OrderedDict[tuple[Size, str, int], Engine] = OrderedDict()
        self._model: tuple[ModelHeader, FEdsr] | None = None
        self._stamp = Stamp(runtime=CONVENTIONAL_RUNTIME, threads=self.config.threads or env.threads)
        cv2.setNumThreads(env.threads)
        if self.config.model in CONVENTIONAL or self.config.runtime == CONVENTIONAL_RUNTIME:
            return
        from pipeline.models.load import load_model  # noqa: PLC0415  # PyTorch; see pipeline.models

        path = model_path(self.config.model, self.config.scale)
        header, net = load_model(path)
        if net.config.scale != self.config.scale:
            raise ModelError(
                f"the model up-scales by {net.config.scale}, not by {self.config.scale}",
                where=str(path),
                hint=f"set enhance.scale to {net.config.scale}, or enhance.model to {FAMILY}",
            )
        self._model = header, net.fold()
        runtime = self.config.runtime
        if runtime == "auto":
            runtime = choose(
                self._model[1],
                TRIAL_SIZE,
                device=env.device,
                threads=self._stamp.threads,
                ranges=header.ranges,
            )
        self._stamp = Stamp(model=f"{header.name}@{header.version}", runtime=runtime, threads=self._stamp.threads)

    def stamp(self) -> Stamp:
        """Return what this worker would use for work that brings no stamp: model, runtime and threads.

        Workers of one pool may have measured differently: the flow asks one of them once and stamps all work with it.
        """
        return self._stamp

    def process(self, work: Work[FrameBatch]) -> FrameBatch:
        """Return the batch up-scaled, by what the stamp names, else by what was chosen at `open`.

        Raises:
            ModelError: the stamp names other weights than those loaded.
        """
        batch = work.item
        stamp = work.stamp if work.stamp.runtime else self._stamp
        if stamp.runtime == CONVENTIONAL_RUNTIME:
            return upscale(batch, self.config.scale)
        if self._model is None or stamp.model not in ("", self._stamp.model):
            raise ModelError(
                f"the stamp asks for the model '{stamp.model}', loaded is '{self._stamp.model}'",
                where=f"enhance {work.span}",
                hint="replay with the weights that the manifest names",
            )
        out = empty_like(batch, self.config.scale)
        self._engine(batch.size, stamp.runtime, stamp.threads).upscale(batch.planes().y, out.planes().y)
        upscale_chroma(batch, self.config.scale, out)
        return out

    def bypass(self, work: Work[FrameBatch]) -> FrameBatch:
        """Return the bicubic up-scale."""
        return upscale(work.item, self.config.scale)

    def close(self) -> None:
        """Let go of the compiled networks."""
        self._engines = OrderedDict()
        self._model = None

    def _engine(self, size: Size, runtime: str, threads: int) -> Engine:
        assert self._model is not None
        key = (size, runtime, threads)
        if key not in self._engines:
            header, net = self._model
            device = self.env.device
            self._engines[key] = open_engine(runtime, net, size, device=device, threads=threads, ranges=header.ranges)
            if len(self._engines) > NUM_ENGINES:
                self._engines.popitem(last=False)
        self._engines.move_to_end(key)
        return self._engines[key]


def model_path(name: str, scale: int = 2) -> Path:
    """Return the file of a model: a shipped one by its name (a family's: that of the scale), else the path `name`."""
    family = SHIPPED / f"{name}-x{scale}.safetensors"
    shipped = family if Path(name).name == name and family.is_file() else SHIPPED / f"{name}.safetensors"
    return shipped if Path(name).name == name and shipped.is_file() else Path(name)
