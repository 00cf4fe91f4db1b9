"""Where per-stream boxes sit: a seat is one box of one stream on a host; a host may seat several streams' same box."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.calls import Device
from actors.hosts import ANYWHERE, Host


@dataclass(slots=True, eq=False)
class Seat:
    """A box's (or the source's) place. What is posted before a host has been found waits for it, in order."""

    name: str
    generation: int = 0
    alone: bool = False
    networks: bool = False  # as Box.networks
    device: Device = ANYWHERE  # that its host is pinned to
    host: Host | None = None
    backlog: list[Callable[[Host], None]] = field(default_factory=list)

    def post(self, send: Callable[[Host], None]) -> None:
        """Send something to the host, now or when it is there."""
        if self.host is None:
            self.backlog.append(send)
        elif self.host.alive:
            send(self.host)

    def sit(self, host: Host) -> None:
        """Take a host; send what waits."""
        self.host = host
        waiting, self.backlog = self.backlog, []
        for send in waiting:
            self.post(send)


class Places:
    """Which hosts seat which box, for all streams of a supervisor."""

    def __init__(self) -> None:
        self._hosts: dict[str, list[Host]] = {}

    def find(self, box: str, per_box: int) -> Host | None:
        """Return a host for one more stream's box; None: a further one should be taken.

        Args:
            box: its name.
            per_box: hosts of one box, at most; further streams share them.
        """
        here = self._hosts[box] = [h for h in self._hosts.get(box, []) if h.alive]
        idle = [h for h in here if h.users == 0]
        if idle:
            return idle[0]
        return min(here, key=lambda h: h.users) if len(here) >= per_box else None

    def join(self, box: str, host: Host) -> None:
        """Note that one more stream's box sits on a host."""
        here = self._hosts.setdefault(box, [])
        if host not in here:
            here.append(host)
        host.users += 1

    def leave(self, box: str, host: Host, *, keep: bool) -> bool:
        """Note that it does no more; return whether the host is free for something else. `keep`: only for this box."""
        host.users -= 1
        if host.users or keep:
            return False
        here = self._hosts.get(box, [])
        if host in here:
            here.remove(host)
        return True
