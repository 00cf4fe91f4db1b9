"""What the client commands share: the service's address, calls, events that go on after a broken connection."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from pipeline.errors import ConfigError, LimpidError, Unreachable

DEFAULT_SERVER = "http://127.0.0.1:8000"
TIMEOUT_S = 60.0
"""Seconds without an answer; events have heartbeats every 15 s."""

AGAIN_S = 1.0
"""Seconds between two tries to reach a service that has gone."""

Query = Mapping[str, str | Sequence[str]]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every client command has."""
    parser.add_argument("--server", metavar="URL", help=f"the service ($LIMPID_SERVER, else {DEFAULT_SERVER})")
    parser.add_argument("--json", action="store_true", help="print JSON")


def client_of(args: argparse.Namespace) -> Client:
    """Return a client of the service that the arguments and the environment name. Raises ConfigError."""
    server = args.server or os.environ.get("LIMPID_SERVER") or DEFAULT_SERVER
    return Client(server, token=os.environ.get("LIMPID_TOKEN", ""))


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """An event: its number in the service's log, and the CloudEvent."""

    number: int
    content: Mapping[str, Any]


class Client:
    """Calls of the HTTP API. It follows no redirect: a token goes to the server that was named, and to no other."""

    def __init__(self, server: str, *, token: str = "") -> None:
        where = "--server"
        try:
            parts = urlsplit(server)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"'{server}' is no address", where=where, hint=f"write {DEFAULT_SERVER}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigError(f"'{server}' is no http(s) address", where=where, hint=f"write {DEFAULT_SERVER}")
        if not token.isascii() or _CONTROL.search(token):
            raise ConfigError("this is no token", where="LIMPID_TOKEN", hint="set it as `limpid token new` printed it")
        self.server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._secure, self._host, self._port = parts.scheme == "https", host, port
        self._prefix = parts.path.rstrip("/")
        self._token = token

    def call(self, method: str, path: str, *, query: Query | None = None, body: Any = None) -> Any:
        """Return the JSON that a call gives, None where it gives none. A body of bytes is sent as it is.

        Raises:
            Unreachable: no service answers there.
            LimpidError: it refuses, with what it says.
        """
        connection, answer = self._open(method, path, query, body, {})
        try:
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from error
        finally:
            connection.close()
        return json.loads(data) if data else None

    def events(self, path: str, *, query: Query, after: int = 0, follow: bool) -> Iterator[Event]:
        """Give events behind number `after`; with `follow` without end, over restarts of the service.

        Raises:
            Unreachable: no service answers at the first try.
            LimpidError: it refuses.
        """
        reached = False
        while True:
            try:
                for event in self._events(path, {**query, "follow": "true" if follow else "false"}, after):
                    reached, after = True, event.number
                    yield event
                reached = True
            except Unreachable as error:
                if not reached or not follow:
                    raise
                print(f"{error.what}; trying again", file=sys.stderr)
            if not follow:
                return
            time.sleep(AGAIN_S)

    def _events(self, path: str, query: Query, after: int) -> Iterator[Event]:
        connection, answer = self._open("GET", path, query, None, {"Last-Event-ID": str(after)} if after else {})
        number, data = 0, ""
        try:
            while line := answer.readline():
                name, _, value = line.decode().rstrip("\r\n").partition(":")
                value = value.removeprefix(" ")
                if name == "id":
                    number = int(value)
                elif name == "data":
                    data += value
                elif not name and not value and data:
                    yield Event(number=number, content=json.loads(data))
                    data = ""
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from error
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, query: Query | None, body: Any, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request; return its answer, with the body still to be read. Raises Unreachable, LimpidError."""
        sent = {"Accept": "application/json", **headers}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/octet-stream" if data is body else "application/json"
        target = self._prefix + path + (f"?{urlencode(query, doseq=True)}" if query else "")
        connection: http.client.HTTPConnection
        if self._secure:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request(method, target, data, sent)
            answer = connection.getresponse()
            refused = answer.read() if answer.status >= 300 else b""
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._gone(error) from error
        if answer.status >= 300:
            connection.close()
            raise self._refused(answer.status, refused)
        return connection, answer

    def _gone(self, error: Exception) -> Unreachable:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        return Unreachable(
            f"the service does not answer ({reason})",
            where=self.server,
            hint="start it with `limpid serve`, or name another one with --server",
        )

    def _refused(self, status: int, data: bytes) -> LimpidError:
        try:
            problem = json.loads(data)
            return LimpidError(str(problem["detail"]))
        except (ValueError, TypeError, KeyError):
            return LimpidError(f"answered {status}, which is no answer of Limpid's", where=self.server)


def stream_path(stream: str, rest: str = "") -> str:
    """Return the path of a stream's resource, whatever characters its id has."""
    return f"/v1/streams/{quote(stream, safe='')}{rest}"


def labels_of(words: Sequence[str] | None) -> dict[str, str]:
    """Return labels from words "key=value". Raises ConfigError."""
    found = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"'{word}' is no label", where="--label", hint="write key=value")
        found[key] = value
    return found


def plain(text: object) -> str:
    """Return text that is safe to print: what others named may hold control characters."""
    return _CONTROL.sub("�", str(text))


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
