"""Bearer tokens of the service and push keys of publishers, hashed at rest.

    service/tokens/<name>.json        a token: its scopes and the SHA-256 of its secret
    service/publishers/<id>.json      who may push a stream, and by which key its models are signed
    service/link-key                  32 bytes that sign links

A token is "<name>.<secret>", a push key "<publisher>.<secret>": so one object decides, without reading all. The secret
has 256 random bits, for which one SHA-256 is enough: nothing can be guessed. An object a name, because a store's only
conditional write is "unless it exists": two who make the same name at once cannot both have it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pipeline.errors import ConfigError, Conflict, NotFound, StorageError
from pipeline.store.objects import Store
from pipeline.wire.ids import stream_id

Scope = Literal["read", "write", "models"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""read: see everything; write: also change (implies read); models: push models."""

LINK_KEY = "service/link-key"
_TOKENS, _PUBLISHERS = "service/tokens", "service/publishers"
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_PUBLIC_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A token as it is kept: without its secret. `created_at`: Unix seconds."""

    name: str
    scopes: frozenset[Scope]
    created_at: float
    digest: str

    def allows(self, scope: Scope) -> bool:
        """Say whether this token has `scope`; write implies read."""
        return scope in self.scopes or (scope == "read" and "write" in self.scopes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Publisher:
    """Who may push a stream. `public_key`: Ed25519, base64 of its 32 bytes; `created_at`: Unix seconds."""

    id: str
    stream: str
    public_key: str
    created_at: float
    digest: str


def new_token(store: Store, name: str, scopes: Iterable[str], *, now_s: float) -> str:
    """Make a token and return it; it cannot be read again.

    Raises:
        ConfigError: no such name or scope.
        Conflict: the name is taken.
        StorageError: it cannot be written.
    """
    _check_name(name, "name")
    wanted = sorted(set(scopes))
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        raise ConfigError(f"no such scope '{''.join(unknown[:1])}'", where="scope", hint=f"use {', '.join(SCOPES)}")
    secret, digest = _secret()
    kept = {"name": name, "scopes": wanted, "created_at": now_s, "sha256": digest}
    if not store.put_new(f"{_TOKENS}/{name}.json", json.dumps(kept).encode()):
        raise Conflict(f"there is a token '{name}' already", where="name", hint="revoke it, or take another name")
    return f"{name}.{secret}"


def find_token(store: Store, text: str) -> Token | None:
    """Return the token that `text` is, None where it is none. Raises StorageError."""
    name, _, secret = text.partition(".")
    if not _NAME.fullmatch(name):
        return None
    token = _load_token(store, name)
    return token if token is not None and _is(secret, token.digest) else None


def tokens(store: Store) -> list[Token]:
    """Return all tokens, by name. Raises StorageError."""
    found = (_load_token(store, name) for name in _names(store, _TOKENS))
    return [token for token in found if token is not None]


def revoke_token(store: Store, name: str) -> None:
    """Remove a token; it is refused from now on. Raises NotFound, StorageError."""
    _remove(store, f"{_TOKENS}/{_check_name(name, 'name')}.json", f"there is no token '{name}'")


def new_publisher(store: Store, *, id: str, stream: str, public_key: str, now_s: float) -> tuple[Publisher, str]:
    """Let a publisher push `stream`; return it and its push key, which cannot be read again.

    Raises:
        ConfigError: wrong names, or no Ed25519 key.
        Conflict: the id is taken.
        StorageError: it cannot be written.
    """
    _check_name(id, "id")
    stream_id(stream)
    try:
        size = len(base64.b64decode(public_key, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != _PUBLIC_KEY_BYTES:
        raise ConfigError("this is no Ed25519 key", where="public_key", hint="give base64 of its 32 bytes")
    secret, digest = _secret()
    made = Publisher(id=id, stream=stream, public_key=public_key, created_at=now_s, digest=digest)
    kept = {"id": id, "stream": stream, "public_key": public_key, "created_at": now_s, "sha256": digest}
    if not store.put_new(f"{_PUBLISHERS}/{id}.json", json.dumps(kept).encode()):
        raise Conflict(f"there is a publisher '{id}' already", where="id", hint="delete it, or take another id")
    return made, f"{id}.{secret}"


def publisher(store: Store, id: str) -> Publisher:
    """Return a publisher. Raises NotFound, StorageError."""
    found = _load_publisher(store, _check_name(id, "id"))
    if found is None:
        raise NotFound(f"there is no publisher '{id}'", where="id")
    return found


def publishers(store: Store) -> list[Publisher]:
    """Return all publishers, by id. Raises StorageError."""
    found = (_load_publisher(store, id) for id in _names(store, _PUBLISHERS))
    return [one for one in found if one is not None]


def remove_publisher(store: Store, id: str) -> None:
    """Remove a publisher; its key is refused from now on. Raises NotFound, StorageError."""
    _remove(store, f"{_PUBLISHERS}/{_check_name(id, 'id')}.json", f"there is no publisher '{id}'")


def may_push(store: Store, *, stream: str, key: str) -> bool:
    """Say whether `key` is the push key of a publisher of `stream`. Raises StorageError."""
    id, _, secret = key.partition(".")
    if not _NAME.fullmatch(id):
        return False
    found = _load_publisher(store, id)
    return found is not None and _is(secret, found.digest) and found.stream == stream


def link_key(store: Store) -> bytes:
    """Return the key that signs links; made once for a store, the same for all who ask. Raises StorageError."""
    try:
        return store.get(LINK_KEY)
    except NotFound:
        store.put_new(LINK_KEY, secrets.token_bytes(32))
        return store.get(LINK_KEY)


def _secret() -> tuple[str, str]:
    secret = secrets.token_urlsafe(32)
    return secret, hashlib.sha256(secret.encode()).hexdigest()


def _is(secret: str, digest: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(secret.encode(errors="replace")).hexdigest(), digest)


def _check_name(name: str, where: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name", where=where, hint="use 1 to 64 characters of a-z, 0-9 and '-'")
    return name


def _names(store: Store, folder: str) -> list[str]:
    found = (name.removeprefix(f"{folder}/").removesuffix(".json") for name in store.list(f"{folder}/"))
    return [name for name in found if _NAME.fullmatch(name)]


def _load_token(store: Store, name: str) -> Token | None:
    where = f"{_TOKENS}/{name}.json"
    found = _load(store, where)
    if found is None:
        return None
    try:
        scopes = frozenset(scope for scope in SCOPES if scope in found["scopes"])
        return Token(name=name, scopes=scopes, created_at=float(found["created_at"]), digest=str(found["sha256"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError("the token is damaged", where=where, hint="revoke it and make another") from error


def _load_publisher(store: Store, id: str) -> Publisher | None:
    where = f"{_PUBLISHERS}/{id}.json"
    found = _load(store, where)
    if found is None:
        return None
    try:
        return Publisher(
            id=id,
            stream=str(found["stream"]),
            public_key=str(found["public_key"]),
            created_at=float(found["created_at"]),
            digest=str(found["sha256"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError("the publisher is damaged", where=where, hint="delete it and make another") from error


def _load(store: Store, name: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(store.get(name))
    except NotFound:
        return None
    except ValueError as error:
        raise StorageError("this is no JSON", where=name, hint="it is damaged: remove it") from error
    if not isinstance(found, dict):
        raise StorageError("this is no JSON object", where=name, hint="it is damaged: remove it")
    return found


def _remove(store: Store, name: str, missing: str) -> None:
    if not store.exists(name):
        raise NotFound(missing)
    store.delete(name)
