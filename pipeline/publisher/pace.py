"""How fast uploads may go: what the uplink leaves free beside the video, as a token bucket."""

from __future__ import annotations

MARGIN = 0.1  # of the uplink that is left to headers, acknowledgements and other users
_BURST_S = 0.05  # of sending that may be made up for: a burst of uploads is a delay of the video
_SHORTEST_S, _LONGEST_S = 0.001, 1.0  # waits: rounding must not make one of nothing, and the video changes meanwhile
_OVERHEAD = 1.06  # bytes on the wire a byte of payload: 40 to 80 bytes of headers in 1,500


class Bucket:
    """Says how long to wait before so many bytes may go; time is an argument.

    Args:
        uplink_bps: of the whole line.
    """

    def __init__(self, uplink_bps: float) -> None:
        self._uplink_bps = uplink_bps
        self._tokens = 0.0  # bits
        self._at_s: float | None = None

    def free_bps(self, video_bps: float) -> float:
        """Return what is free beside the video, in payload bits a second."""
        return max(0.0, self._uplink_bps * (1 - MARGIN) / _OVERHEAD - video_bps)

    def wait_s(self, num_bytes: int, *, video_bps: float, now_s: float) -> float:
        """Return 0 if `num_bytes` may go now (they are taken then), else how long to wait until asking again."""
        rate_bps = self.free_bps(video_bps)
        passed_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        wanted = 8.0 * num_bytes
        self._tokens = min(self._tokens + passed_s * rate_bps, max(wanted, _BURST_S * rate_bps))
        if self._tokens >= wanted:
            self._tokens -= wanted
            return 0.0
        return min(_LONGEST_S, max(_SHORTEST_S, (wanted - self._tokens) / rate_bps)) if rate_bps else _LONGEST_S
