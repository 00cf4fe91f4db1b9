"""Whose turn it is among live streams that share machines: who is made lighter for another, and who goes back first.

Each stream's own ladder answers for its own lag. Two things no stream can know by itself: that it is another one that
has no rung left and needs the cores, and that there is room for one to go back, but not for all. Streams of low
`priority` give first and go back last; among equals, bits are given before sharpness: who would lose its network gives
last, and who has lost it goes back first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.plan.admit import KEPT_IDLE
from pipeline.plan.ladder import Rung


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How a live stream stands.

    Attributes:
        key: of the stream.
        priority: 0 to 9; the higher, the longer it keeps its full work.
        rung: it is at.
        network: a network enhances it, below BICUBIC.
        well: it has been well for so long that it may go back a rung.
        late: it has been late for long, and there is no rung left that it could take.
        can_give: there is one left, and the last that it took has shown what it does.
    """

    key: str
    priority: int
    rung: Rung
    network: bool = True
    well: bool = False
    late: bool = False
    can_give: bool = False

    @property
    def enhances(self) -> bool:
        """Whether a network enhances it now."""
        return self.network and self.rung < Rung.BICUBIC

    @property
    def misses(self) -> bool:
        """Whether a network would, and has been taken away."""
        return self.network and self.rung >= Rung.BICUBIC


def giver(standings: Iterable[Standing], *, idle_cpus: float | None, cluster_cpus: float) -> str | None:
    """Return the stream that takes a rung for one that is late and has none left; None where nobody should.

    Nobody does while cores idle: then that one is late by what its source does (segments of many seconds arrive as a
    backlog), and others' work is not in its way.

    Args:
        standings: of all live streams.
        idle_cpus: cores without work; None: not known.
        cluster_cpus: cores.
    """
    all_of_them = list(standings)
    busy = idle_cpus is not None and idle_cpus < KEPT_IDLE * cluster_cpus
    if not busy or not any(each.late for each in all_of_them):
        return None
    able = [each for each in all_of_them if each.can_give]
    return min(able, key=lambda each: (each.priority, each.enhances, each.rung, each.key)).key if able else None


def returning(standings: Iterable[Standing]) -> Iterator[str]:
    """Yield the streams that may go back a rung, the first that should first: one at a time, into room."""
    well = [each for each in standings if each.well]
    yield from (
        each.key for each in sorted(well, key=lambda each: (-each.priority, not each.misses, -each.rung, each.key))
    )
