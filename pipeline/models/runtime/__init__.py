"""One way to run F-EDSR, several runtimes behind it; `open_engine` by name, `choose` by a short measurement."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.models.runtime.engine import Engine, Ranges
from pipeline.wire.frames import Size

if TYPE_CHECKING:
    from pipeline.models.fedsr import FEdsr

__all__ = ["RUNTIMES", "Engine", "Ranges", "Runtime", "check_name", "open_engine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Where a runtime lies and what it needs; its module is imported when it is first opened (a second for some)."""

    module: str
    engine: str
    devices: tuple[str, ...] = ("cpu",)  # torch's device types
    int8: bool = False


RUNTIMES: dict[str, Runtime] = {
    "openvino-int8": Runtime(module="openvino_", engine="OpenVinoInt8", int8=True),
    "openvino-fp32": Runtime(module="openvino_", engine="OpenVinoFloat"),
    "onnx": Runtime(module="onnx_", engine="OnnxRuntime"),
    "pytorch": Runtime(module="pytorch", engine="PyTorch", devices=("cpu", "cuda")),
}
"""The runtimes by the name that a configuration, a stamp and a manifest use; mostly the fastest first."""


def check_name(name: str) -> str:
    """Return the name of a runtime.

    Raises:
        ConfigError: there is no such runtime.
    """
    if name not in RUNTIMES:
        raise ConfigError(f"no runtime '{name}'", where="runtime", hint=f"known are auto, {', '.join(RUNTIMES)}")
    return name


def open_engine(
    name: str, net: FEdsr, size: Size, *, device: str = "cpu", threads: int = 1, ranges: Ranges | None = None
) -> Engine:
    """Return the folded `net` ready to run in the runtime `name` on frames of `size`.

    Raises:
        ConfigError: there is no such runtime, or it does not run on `device`.
        ModelError: it cannot run this network (int8 without `ranges`).
    """
    runtime = RUNTIMES[check_name(name)]
    if device.split(":", maxsplit=1)[0] not in runtime.devices:
        raise ConfigError(
            f"'{name}' does not run on '{device}'", where="runtime", hint=f"it runs on {', '.join(runtime.devices)}"
        )
    engine: type[Engine] = getattr(import_module(f"{__name__}.{runtime.module}"), runtime.engine)
    return engine(net, size, device=device, threads=threads, ranges=ranges or {})
