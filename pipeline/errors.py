"""Every error that Limpid raises for something that a user, a network or a disk did.

LimpidError
├── ConfigError                 a setting, a command-line value
│   └── GraphError              a logical graph: unknown stage, wrong types, cycle
├── SourceError                 a video that comes in
│   ├── Unreachable             it cannot be opened or read (missing, refused by its server, timed out)
│   │   └── Refused             its address, scheme or redirect is not allowed here
│   ├── UnsupportedMedia        it opens, but it holds nothing that can be processed
│   └── CorruptMedia            it is damaged beyond what decoding can skip
├── ModelError                  a network or its weights
│   ├── ModelFormatError        not a model file, wrong shapes, values that are not finite
│   ├── SignatureError          the signature is absent or wrong
│   └── ModelRejected           a good file that a stream does not take: no better than what it has, or older
├── CapacityError               what is asked for does not fit (with `retry_after_s`)
├── StorageError                where results go
│   ├── NotFound                no such object
│   └── Conflict                another content has that name already
└── StageError                  a stage failed on a batch (with `stage` and `span`)

A bug of ours is no LimpidError: it is an `assert`, and it is allowed to be loud.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LimpidError(Exception):
    """Something went wrong: `what`, at `where` (stream, stage, file or field); `hint` says what to do."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.hint})" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray sends errors between processes; Exception's own pickling would lose the keyword arguments.
        return _rebuild, (type(self), self.__dict__.copy())


def _rebuild(kind: type[LimpidError], fields: Mapping[str, Any]) -> LimpidError:
    error = kind.__new__(kind)
    error.__dict__.update(fields)
    error.args = (fields["what"],)
    return error


class ConfigError(LimpidError, ValueError):
    """A setting or a command-line value is wrong."""


class GraphError(ConfigError):
    """A logical graph cannot be built: unknown stage, edge of the wrong type, cycle."""


class SourceError(LimpidError):
    """A source of video cannot be used."""


class Unreachable(SourceError, OSError):
    """A source cannot be opened or read: missing, refused by its server, timed out or not allowed."""


class Refused(Unreachable):
    """A source's address, scheme or redirect is not allowed here: nobody was asked for it."""


class UnsupportedMedia(SourceError):
    """A source opens, but holds nothing that can be processed."""


class CorruptMedia(SourceError):
    """A source is damaged beyond what decoding can skip."""


class ModelError(LimpidError):
    """A network or its weights cannot be used."""


class ModelFormatError(ModelError, ValueError):
    """A file is no model, or its shapes or values are wrong."""


class SignatureError(ModelError):
    """A model's signature is absent or wrong."""


class ModelRejected(ModelError):
    """A stream does not take a model that is one; `figures` say by how much it misses."""

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", figures: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.figures = dict(figures or {})


class CapacityError(LimpidError):
    """What is asked for does not fit; it may later."""

    def __init__(self, what: str, *, where: str = "", hint: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(what, where=where, hint=hint)
        self.retry_after_s = retry_after_s


class StorageError(LimpidError, OSError):
    """Results cannot be written or read."""


class NotFound(StorageError):
    """There is no such object."""


class Conflict(StorageError):
    """Another content has that name already."""


class StageError(LimpidError):
    """A stage failed on a batch; `cause` is what it said."""

    def __init__(self, what: str, *, stage: str, span: str, cause: str = "", hint: str = "") -> None:
        super().__init__(what, where=f"{stage} {span}", hint=hint)
        self.stage = stage
        self.span = span
        self.cause = cause
