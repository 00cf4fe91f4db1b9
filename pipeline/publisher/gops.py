"""What waits to be pushed: packets in order, and whole groups of pictures dropped where too many wait."""

from __future__ import annotations

from collections import deque

from pipeline.media.push import LivePacket


class GopQueue:
    """A queue of packets that holds at most `limit_s` of video.

    What is taken out can be decoded at any time: when packets go, the rest of their group of pictures goes too.
    `dropped` counts them.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_ms = round(limit_s * 1000)
        self._packets: deque[LivePacket] = deque()
        self._keyless = True  # what comes next refers to what is not here
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._packets)

    @property
    def waiting_s(self) -> float:
        """How much video waits, in seconds."""
        return (self._packets[-1].pts_ms - self._packets[0].pts_ms) / 1000 if self._packets else 0.0

    @property
    def waiting_bytes(self) -> int:
        """How much data waits."""
        return sum(len(packet.data) for packet in self._packets)

    def put(self, packet: LivePacket) -> None:
        """Append a packet; where more than the limit waits then, the oldest groups go."""
        if self._keyless and not packet.key:
            self.dropped += 1
            return
        self._keyless = False
        self._packets.append(packet)
        while self._packets and self._packets[-1].pts_ms - self._packets[0].pts_ms > self._limit_ms:
            self._drop_group()

    def take(self) -> LivePacket | None:
        """Return the next packet, None where none waits."""
        return self._packets.popleft() if self._packets else None

    def restart(self) -> None:
        """Another connection begins: what comes out next is a key frame's packet."""
        if self._packets and not self._packets[0].key:
            self._drop_group()
        elif not self._packets:
            self._keyless = True

    def _drop_group(self) -> None:
        """Drop the first packet and what follows it up to the next key frame."""
        self._packets.popleft()
        self.dropped += 1
        while self._packets and not self._packets[0].key:
            self._packets.popleft()
            self.dropped += 1
        self._keyless = not self._packets
