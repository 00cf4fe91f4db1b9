"""Lets through what an RTSP server says, except redirects: FFmpeg follows those wherever they lead (RFC 2326 §11.3).

FFmpeg reads loosely: any version, any white space, carriage returns anywhere. So a pattern that looks for a redirect in
the bytes can be tricked. This reads messages strictly, and what is not written as the RFC has it ends the connection:
then there is one way to read what passes.
"""

from __future__ import annotations

import re

from pipeline.errors import CorruptMedia, Refused, SourceError

_HEAD_BYTES = 32 << 10
_BODY_BYTES = 1 << 20
_FRAME_HEAD_BYTES = 4  # "$", channel, length of two bytes: RTP between the messages (RFC 2326 §10.12)
_ANSWER = re.compile(rb"RTSP/1\.[01] ([0-9]{3})( [^\r\n\0]*)?")
_REQUEST = re.compile(rb"[A-Z_]{1,32} [^ \r\n\0]{1,2048} RTSP/1\.[01]")  # a server may ask as well
_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9_.\-]{0,99}[ \t]*:[^\r\n\0]{0,2048}")  # FFmpeg cuts lines off at 4096 bytes
_LENGTH = b"content-length:"


class RtspGuard:
    """Reads one connection's bytes from the server."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._held = b""
        self._body_bytes = 0  # of the message that is under way, still to come

    def passed(self, data: bytes) -> bytes:
        """Return what may be passed on, now that `data` has come; what is no whole message yet is kept.

        Raises:
            Refused: the server redirects.
            CorruptMedia: it does not speak RTSP as the RFC has it.
        """
        self._held += data
        out = []
        while unit := self._unit():
            out.append(unit)
            self._held = self._held[len(unit) :]
        return b"".join(out)

    def _unit(self) -> bytes:
        """The first frame, head, or part of a body in what is held; b"" where more has to come."""
        held = self._held
        if self._body_bytes:
            body = held[: self._body_bytes]
            self._body_bytes -= len(body)
            return body
        if held.startswith(b"$"):
            size = _FRAME_HEAD_BYTES + int.from_bytes(held[2:_FRAME_HEAD_BYTES])
            return held[:size] if len(held) >= max(size, _FRAME_HEAD_BYTES) else b""
        end = held.find(b"\r\n\r\n")
        if end < 0:
            if len(held) > _HEAD_BYTES:
                raise self._broken("a message without end")
            return b""
        self._judge(held[:end].split(b"\r\n"))
        return held[: end + 4]

    def _judge(self, lines: list[bytes]) -> None:
        answer = _ANSWER.fullmatch(lines[0])
        if answer is None and not _REQUEST.fullmatch(lines[0]):
            raise self._broken("what is no RTSP message")
        if answer is not None and answer[1].startswith(b"3"):
            raise Refused(
                "the server redirects, which is not followed for RTSP", where=self._where, hint="use where it leads"
            )
        lengths = []
        for line in lines[1:]:
            if not _HEADER.fullmatch(line):
                raise self._broken("an odd line")
            if line.lower().startswith(_LENGTH):
                lengths.append(line[len(_LENGTH) :].strip(b" "))
        if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,7}", n) and int(n) <= _BODY_BYTES for n in lengths):
            raise self._broken("a message of no clear length")
        self._body_bytes = int(lengths[0]) if lengths else 0

    def _broken(self, what: str) -> SourceError:
        return CorruptMedia(f"the server sends {what}", where=self._where, hint="is it an RTSP server?")
