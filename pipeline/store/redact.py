"""Text without secrets: what may be written down or logged of a URL."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

_URL = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*)://(\S+)")
_SECRET = re.compile(r"token|key|sig|secret|pass|pwd|auth|cred|session|policy|jwt|hmac|hash", re.IGNORECASE)
# Names of settings, whole words only: "key_frames" and "passes" are no secrets.
_SECRET_WORDS = frozenset({"token", "password", "secret", "passwd", "apikey", "credential", "credentials"})
_LONG = 24  # characters from which a value of any name is taken for a token (chosen)
_PLAIN_SCHEMES = ("synthetic", "file")  # their queries are settings of ours and parts of paths


def redact(text: str) -> str:
    """Return `text` with the passwords and tokens of every URL in it replaced by "***".

    Hidden are "user:password" before a host and the values of query parameters that are long or named like a secret;
    the rest of the URL stays as it is. The same URL gives the same text, so redacted URLs may be compared.
    """
    return _URL.sub(lambda match: _redact_url(match[1], match[2]), text)


def redact_all(value: Any) -> Any:
    """Return a JSON-able value with every text in it redacted, and texts under secret names hidden."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {k: HIDDEN if _is_secret(k, v) else redact_all(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(v) for v in value]
    return value


def _is_secret(key: Any, value: Any) -> bool:
    words = re.split(r"[^a-z]+", str(key).lower())
    return isinstance(value, str) and bool(value) and any(w in _SECRET_WORDS for w in words)


def _redact_url(scheme: str, rest: str) -> str:
    if scheme.lower() in _PLAIN_SCHEMES:
        return f"{scheme}://{rest}"
    head, mark, query = rest.partition("?")
    host, slash, path = head.partition("/")
    if "@" in host:
        host = f"{HIDDEN}@{host.rpartition('@')[2]}"
    return f"{scheme}://{host}{slash}{path}{mark}{_redact_query(query)}"


def _redact_query(query: str) -> str:
    pairs = []
    for pair in query.split("&"):
        name, equals, value = pair.partition("=")
        if equals and (_SECRET.search(name) or len(value) >= _LONG):
            value = HIDDEN
        elif not equals and len(name) >= _LONG:
            name = HIDDEN
        pairs.append(f"{name}{equals}{value}")
    return "&".join(pairs)
