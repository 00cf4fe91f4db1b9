"""What an exception of Ray means for the flow, in one table, with the reason for each."""

from __future__ import annotations

from enum import Enum

import ray.exceptions as rx


class Verdict(Enum):
    """What to do about a call that gave no reply."""

    DIED = "the process is gone: what it had is done by another one"
    REPLAY = "an input is gone: take the stream up from what is durable"
    FAIL = "trying again cannot help"


TABLE: tuple[tuple[type[BaseException], Verdict, str], ...] = (
    (rx.ActorUnschedulableError, Verdict.FAIL, "no node has what the process asks for"),
    (rx.ActorDiedError, Verdict.DIED, "killed, crashed, or its node is gone; we never have Ray restart it"),
    (rx.ActorUnavailableError, Verdict.DIED, "cannot be reached; it is killed, for two may not work on one generation"),
    (rx.ActorPlacementGroupRemoved, Verdict.DIED, "its resources were taken away"),
    (rx.WorkerCrashedError, Verdict.DIED, "the process ended while the call ran"),
    (rx.NodeDiedError, Verdict.DIED, "its node is gone"),
    (rx.LocalRayletDiedError, Verdict.DIED, "its node's daemon is gone, and workers go with it"),
    (rx.OutOfMemoryError, Verdict.DIED, "Ray killed it because the node ran out of memory"),
    (rx.TaskCancelledError, Verdict.DIED, "the call was given up with its process"),
    (rx.ObjectLostError, Verdict.REPLAY, "the node that held an input is gone; includes OwnerDiedError"),
    (rx.ObjectStoreFullError, Verdict.FAIL, "more in flight than the object store holds: flow.queue_bytes is too high"),
    (rx.OutOfDiskError, Verdict.FAIL, "the object store spilled until the disk was full"),
    (rx.RuntimeEnvSetupError, Verdict.FAIL, "the code cannot be brought to the worker"),
    (rx.RayTaskError, Verdict.FAIL, "a host answers stages' errors itself: what it raises is a bug of ours"),
    (rx.RayError, Verdict.DIED, "anything else: without a reply the process counts as dead, and is made so"),
)
"""First match wins; subclasses stand before their bases."""


def verdict_of(error: BaseException) -> tuple[Verdict, str]:
    """Return what to do about a call that raised `error`, and why."""
    # A call whose input cannot be had raises RayTaskError with the loss as its cause.
    cause = getattr(error, "cause", None)
    if isinstance(error, rx.RayTaskError) and isinstance(cause, rx.RayError):
        error = cause
    for kind, verdict, why in TABLE:
        if isinstance(error, kind):
            return verdict, why
    raise error
