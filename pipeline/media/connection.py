"""One connection to a live source: opened, its tracks chosen, and read to its end; another thread may end it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import av
import av.error

from pipeline.errors import LimpidError, Unreachable
from pipeline.media import hostile
from pipeline.media.address import Address, reachable, split, without_secrets
from pipeline.media.decode import MEDIA_ERRORS
from pipeline.media.feeds import Feed, HlsFeed, HttpFeed, TcpFeed, UdpFeed
from pipeline.media.fetch import Client
from pipeline.media.http_file import HttpFile
from pipeline.media.placing import Placing, choose_noting, demuxed
from pipeline.media.relay import Relay, dial
from pipeline.media.rtsp_guard import RtspGuard
from pipeline.media.source_base import SourceInfo, SourceOptions
from pipeline.media.source_hls import HlsStream, Place, is_playlist, open_hls
from pipeline.media.tracks import Chosen, source_info
from pipeline.wire.packets import Track

_LOOK = {"fpsprobesize": "6", "probesize": "5000000"}  # frames; bytes: sound behind a large key frame is to be seen
_LONG_US, _SHORT_US = 6_000_000, 500_000
_RTMP = {"rtmp_live": "live", "protocol_whitelist": "rtmp,tcp", "format_whitelist": "flv,live_flv"}
_RTSP = {"rtsp_transport": "tcp", "protocol_whitelist": "rtsp,rtp,tcp", "format_whitelist": "rtsp,rtp,sdp"}
_LISTENS = "rtmp+listen"
_LOST = ("segments_expired", "segments_missing", "segments_lost")


class Connection:
    """One try to read a live source. `open`, `packets` and `close` are one thread's, `interrupt` is anybody's.

    Attributes:
        chosen, info, placing: once it is open.
        recorded: whether what was opened turned out to have an end (a playlist of a recording); nothing is set then.

    Args:
        place: how far an earlier connection has read, see `place`.
    """

    chosen: Chosen
    info: SourceInfo
    placing: Placing

    def __init__(self, uri: str, *, options: SourceOptions, problems: Counter[str], place: Place | None = None) -> None:
        self._uri = uri
        self._where = without_secrets(uri)
        self._options = options
        self._problems = problems
        self._stop = threading.Event()
        self._feed: Feed | None = None
        self._relay: Relay | None = None
        self._client = Client(options)
        self._place = place
        self._hls: HlsStream | None = None
        self._container: Any = None
        self._read: list[Any] = []  # packets that choosing the tracks has read
        self.recorded = False

    def open(self) -> None:
        """Connect and find the tracks.

        Raises:
            Refused: the address is not allowed.
            Unreachable: nobody answers, or nothing comes within `open_timeout_s`.
            UnsupportedMedia, CorruptMedia: see tracks.choose.
        """
        address = split(self._uri)
        try:
            if address.scheme in hostile.HTTP and is_playlist(self._uri, self._options):
                self._open_playlist()
            elif address.scheme in hostile.HTTP:
                file = HttpFile(self._uri, where=self._where, options=self._options, client=self._client)
                self._open_feed(HttpFeed(file), None)
            elif address.scheme in ("tcp", "udp"):
                kind: type[TcpFeed | UdpFeed] = TcpFeed if address.scheme == "tcp" else UdpFeed
                feed = kind(address, options=self._options, stop=self._stop, where=self._where)
                self._open_feed(feed, "mpegts")
            elif address.scheme == _LISTENS:
                self._open_listener(address)
            else:
                self._open_relayed(address, _SHORT_US)
                if not self._container.streams.video and self._container.streams:
                    # FFmpeg stops when it has seen what there is so far, and many servers hold video back until a
                    # key frame; but told to look longer it would look as long at a stream without sound.
                    self._end()
                    self._open_relayed(address, _LONG_US)
            if self.recorded:
                return
            self._choose()
        except LimpidError:
            self._check(None)
            raise
        except (*MEDIA_ERRORS, OSError) as error:
            raise self._why(error) from error
        if self._feed is not None:
            self._feed.opened()
        self.info = replace(source_info(self._container, self.chosen, self._where), live=True, duration_s=None)

    def next_session(self) -> bool:
        """Go on to what follows a playlist's session, with tracks of its own; False where nothing does.

        Raises:
            as `open`.
        """
        if self._hls is None or not self._hls.next_session():
            return False
        assert self._feed is not None
        self._container.close()
        try:
            self._open_feed(self._feed, self._hls.format)
            self._choose()
        except LimpidError:
            self._check(None)
            raise
        except (*MEDIA_ERRORS, OSError) as error:
            raise self._why(error) from error
        return True

    @property
    def has_end(self) -> bool:
        """Whether reading to the end means that the source is over, not that it is away."""
        return self._hls is not None and not self._stop.is_set()

    @property
    def lost(self) -> int:
        """How much the sender, or the network, is known to have lost: segments of a playlist."""
        return sum(self._hls.problems[name] for name in _LOST) if self._hls is not None else 0

    @property
    def place(self) -> Place | None:
        """How far a playlist has been read; None of what is none."""
        return self._hls.place if self._hls is not None else self._place

    @property
    def burst_s(self) -> float:
        """Seconds between two arrivals that are usual: a playlist's segments come whole, and not to the minute."""
        return 3 * self._hls.target_s if self._hls is not None else 0.0

    @property
    def resumed(self) -> bool:
        """Whether it goes on exactly where the connection before it ended."""
        return self._hls is not None and self._hls.resumed

    def packets(self) -> Iterator[tuple[Track, Any]]:
        """Yield the demuxer's packets of both tracks as they come, to the connection's end.

        Raises:
            Unreachable: nothing came within `read_timeout_s`, or the connection broke.
            CorruptMedia: what comes makes no sense any more.
        """
        read, self._read = self._read, []
        yield from demuxed(
            self._container,
            self.chosen,
            read=read,
            where=self._where,
            read_timeout_s=self._options.read_timeout_s,
            problems=self._problems,
            check=self._check,
            closed=self._stop.is_set,
        )

    def interrupt(self) -> None:
        """End what is under way. From any thread."""
        self._stop.set()
        for part in (self._relay, self._feed):
            if part is not None:
                part.interrupt()
        self._client.close()
        if self._uri.startswith(f"{_LISTENS}:"):
            self._wake_listener()

    def close(self) -> None:
        """Let go of everything."""
        self._stop.set()
        self._end()
        if self._hls is not None:
            self._problems.update(self._hls.problems)

    def _end(self) -> None:
        if self._relay is not None:
            self._relay.interrupt()  # first: closing says goodbye to a server that may not listen any more
        if self._container is not None:
            self._container.close()
        for part in (self._relay, self._feed):
            if part is not None:
                part.close()

    # --- opening ----------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        self.chosen, self._read = choose_noting(self._container, self._where)
        self.placing = Placing(self._container, self.chosen, where=self._where, problems=self._problems)

    def _open_playlist(self) -> None:
        self._hls = open_hls(self._uri, self._options, client=self._client, place=self._place)
        self.recorded = not self._hls.live
        if self.recorded:
            self._hls.close()
        else:
            self._open_feed(HlsFeed(self._hls, where=self._where), self._hls.format)

    def _open_feed(self, feed: Feed, container_format: str | None) -> None:
        self._feed = feed
        if self._stop.is_set():
            feed.interrupt()
        look = {**_LOOK, "analyzeduration": str(_LONG_US)}
        limits = {"format_whitelist": hostile.CONTAINERS} if container_format is None else {}
        self._container = av.open(
            feed, mode="r", format=container_format, options={**look, **limits}, buffer_size=64 << 10
        )
        self._check(None)

    def _open_relayed(self, address: Address, look_us: int) -> None:
        server = dial(address, options=self._options, stop=self._stop, where=self._where)
        kind = "rtsp" if address.scheme.startswith("rtsp") else "rtmp"
        self._relay = Relay(server, guard=RtspGuard(self._where) if kind == "rtsp" else None)
        if self._stop.is_set():
            self._relay.interrupt()
        here = replace(address, scheme=kind, port=self._relay.port).at("127.0.0.1")
        options = dict(_RTSP) if kind == "rtsp" else {**_RTMP, "rtmp_tcurl": _tc_url(address)}
        look = {**_LOOK, "analyzeduration": str(look_us)}
        self._container = av.open(here, mode="r", options={**options, **look}, timeout=self._timeouts())

    def _open_listener(self, address: Address) -> None:
        ip = reachable(
            address, options=self._options, timeout_s=self._options.open_timeout_s, where=self._where, stop=self._stop
        )
        here = replace(address, scheme="rtmp").at(ip)
        look = {**_LOOK, "analyzeduration": str(_SHORT_US)}
        self._container = av.open(here, mode="r", options={**_RTMP, **look, "listen": "1"}, timeout=self._timeouts())

    def _timeouts(self) -> tuple[float, float]:
        return self._options.open_timeout_s, self._options.read_timeout_s

    def _wake_listener(self) -> None:
        """Connect to our own port and leave: FFmpeg cannot be told otherwise to stop waiting for a publisher."""
        address = split(self._uri)
        host = "127.0.0.1" if address.host in ("0.0.0.0", "localhost") else address.host
        with contextlib.suppress(OSError), socket.create_connection((host, address.port), timeout=0.2):
            pass

    # --- what went wrong --------------------------------------------------------------------------------------------

    def _check(self, error: Exception | None) -> None:
        """Raise what went wrong below the container, which sees an end or an error of the system there."""
        for part in (self._relay, self._feed):
            if part is not None and part.failure is not None:
                raise part.failure
        if isinstance(error, OSError):
            raise self._why(error) from error

    def _why(self, error: Exception) -> LimpidError:
        """The error of a container that did not open, or broke."""
        for part in (self._relay, self._feed):
            if part is not None and part.failure is not None:
                return part.failure
        opened = self._container is not None
        if isinstance(error, av.error.ExitError | TimeoutError):
            waits = self._options.read_timeout_s if opened else self._options.open_timeout_s
            return Unreachable(
                f"nothing came within {waits:g} s", where=self._where, hint="check that something is being sent"
            )
        if isinstance(error, av.error.EOFError):
            return Unreachable("the other side ended the connection", where=self._where, hint="check the address")
        said = getattr(error, "strerror", None) or str(error)
        what = "the connection broke" if opened else "does not open"
        return Unreachable(f"{what} ({said})", where=self._where, hint="check the address, and that it is being sent")


def _tc_url(address: Address) -> str:
    """What an RTMP server is told of where we connect to (it may choose among its names by it): all but the stream."""
    parts = address.rest.partition("?")[0].strip("/").split("/")
    app = "/".join(parts[: 2 if len(parts) > 2 else 1])
    return f"{replace(address, user='', rest='').at(address.host)}/{app}"
