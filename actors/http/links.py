"""Signed links: what a player, which sends no token, may read for a while.

`?sig=<expiry>-<HMAC-SHA-256>` lets whoever holds it read one stream's media (hls, snapshot, live view) until `expiry`
(Unix seconds). The key lies in the store, so every replica of the service makes and takes the same links.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import quote

LINK_S = 12 * 3600
"""Seconds that a link is good for (chosen: a day's work at a screen; a page gets new ones with its token)."""

_SIG = re.compile(r"(\d{1,12})-([0-9a-f]{64})", re.ASCII)
_URI = re.compile(r'(URI=")([^"]+)(")')


def sign(key: bytes, stream: str, *, expires_s: int) -> str:
    """Return the value of `sig` that opens a stream's media until `expires_s` (Unix seconds)."""
    return f"{expires_s}-{_digest(key, stream, expires_s)}"


def holds(key: bytes, stream: str, sig: str, *, now_s: float) -> bool:
    """Say whether `sig` is ours, for this stream, and has not expired."""
    match = _SIG.fullmatch(sig)
    if match is None:
        return False
    expires_s = int(match[1])
    return hmac.compare_digest(_digest(key, stream, expires_s), match[2]) and now_s < expires_s


def with_sig(path: str, sig: str | None) -> str:
    """Return a path with the signature as its query; as it is without one."""
    return f"{path}?sig={quote(sig)}" if sig else path


def signed_playlist(text: str, sig: str) -> str:
    """Return a playlist whose every address carries the signature."""
    lines = []
    for line in text.splitlines():
        if line.startswith("#"):
            lines.append(_URI.sub(lambda match: match[1] + with_sig(match[2], sig) + match[3], line))
        else:
            lines.append(with_sig(line, sig) if line else line)
    return "\n".join(lines) + "\n"


def _digest(key: bytes, stream: str, expires_s: int) -> str:
    return hmac.new(key, f"{stream}\n{expires_s}".encode(), hashlib.sha256).hexdigest()
