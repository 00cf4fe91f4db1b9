"""Ray itself: started quietly on this machine, or joined where RAY_ADDRESS says; ended without leaving a process."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import worker as ray_worker
from ray.exceptions import RayError

from pipeline.errors import CapacityError

SHM = Path("/dev/shm")
_JOIN_S = 5.0  # until a Ray that is to be joined has to answer
_END_S = 10.0  # that processes have for going away before they are killed
_STORE_BYTES = 128 << 20  # of Ray's object store where frames go through slabs

_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a FutureWarning at every start
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",  # else the GCS keeps what every call did: a megabyte a minute
    "RAY_DISABLE_IMPORT_WARNING": "1",
}
_TOKEN = secrets.token_hex(32)
"""Only this process and its children may talk to the Ray that it starts. One token a process: Ray keeps the first."""

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Workers compute with the threads that a stage is given (StageEnv.threads), never with one for each core."""


@contextmanager
def ray_running() -> Iterator[None]:
    """Have Ray running inside; what was started here is ended, and its processes with it."""
    if ray.is_initialized():
        yield
        return
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    # Ray puts its own handlers in; whoever called us wants theirs (Ctrl-C stops a run so that it can be taken up).
    main = threading.current_thread() is threading.main_thread()
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)} if main else {}
    printing = ray_worker.print_to_stdstream
    ray_worker.print_to_stdstream = _told_elsewhere
    try:
        _init()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield
    finally:
        ours = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
        ray.shutdown()
        ray_worker.print_to_stdstream = printing
        gone_or_killed(ours)


def _told_elsewhere(data: object, ignore_prefix: bool) -> None:
    """Print nothing.

    Ray prints a paragraph on standard output for every process that dies, and has no switch for it. Deaths are our
    business: they are events of the stream, and counted in its outcome.
    """


def _init() -> None:
    """Start Ray, or join it.

    Raises:
        CapacityError: RAY_ADDRESS names a place where none can be joined.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    options: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
        "namespace": "limpid",
        "configure_logging": False,
    }
    one_thread = {name: "1" for name in _ONE_THREAD if name not in os.environ}
    if address:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        _check_answers(address)
        try:
            ray.init(address=address, runtime_env={"env_vars": one_thread}, **options)
        except (ConnectionError, RayError) as error:
            raise _not_joined(address, f"Ray cannot be joined: {str(error).splitlines()[0]}") from error
        return
    room = shutil.disk_usage(SHM).free if SHM.is_dir() else 0
    store = _STORE_BYTES if room > 2 * _STORE_BYTES else 80 << 20
    # Ray's processes inherit the environment; a runtime_env would keep workers from being started ahead.
    quiet = {name: value for name, value in _QUIET.items() if name not in os.environ}
    os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
    # It says at every start that it wants a token, which is as it should be.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    os.environ.update(quiet | one_thread)
    try:
        ray.init(num_cpus=os.cpu_count(), object_store_memory=store, **options)
    finally:
        for name in quiet | one_thread:
            os.environ.pop(name, None)


def _check_answers(address: str) -> None:
    """Try the port for some seconds: Ray itself tries for two minutes, and fills the terminal."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return  # "auto" and the like: Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=_JOIN_S).close()
    except (OSError, OverflowError) as error:
        raise _not_joined(address, f"no Ray answers: {error}") from error


def _not_joined(address: str, what: str) -> CapacityError:
    hint = "check RAY_ADDRESS (unset, Ray is started here); where it asks for a token, RAY_AUTH_MODE and RAY_AUTH_TOKEN"
    return CapacityError(what, where=address, hint=hint)


def slab_directories() -> tuple[Path, ...]:
    """Return where results lie in memory that a node's processes share; none where Ray spans several nodes."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    if len([node for node in nodes if node["Alive"]]) > 1:
        return ()
    return tuple(d for d in (SHM, Path(tempfile.gettempdir())) if d.is_dir() and os.access(d, os.W_OK))


def gone_or_killed(processes: list[psutil.Process]) -> None:
    """Wait until processes have ended; end those that do not by themselves."""
    _, alive = psutil.wait_procs(processes, timeout=_END_S)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=_END_S)
