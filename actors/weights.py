"""The weights of one running stream: tries what is pushed, has it got ready everywhere, then has it hold.

What is decided stands in `pipeline.flow.swaps`; here it is carried out: the trial in a spare process, the preparation
in each process that enhances the stream, beside its work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from actors.calls import Audition, Measure, Prepare
from actors.hosts import Died, Host, Hosts, InputLost
from actors.run import StreamRun
from pipeline.errors import LimpidError, ModelRejected
from pipeline.flow.swaps import Swaps
from pipeline.wire.trials import Swap, Trial

_READY_S = 10.0  # that getting ready may take; who is not ready by then loads at the first batch
_AGAIN_S = 0.02  # between two questions whether it is ready
_MEASURE_S = 2.0  # between two measurements of one stream


class StreamWeights:
    """The weights of a run; what is asked of it is done one after the other.

    Args:
        run: of the stream.
        hosts: all processes.
    """

    def __init__(self, run: StreamRun, hosts: Hosts) -> None:
        self._run, self._hosts = run, hosts
        self._swaps = Swaps(run.ledger)
        self._lock = asyncio.Lock()
        self._due = False  # key frames came since the last measurement began
        self._measuring: asyncio.Task[None] | None = None

    async def push(self, data: Any, keys: Mapping[str, str]) -> Swap:
        """Try a model; have it hold if it is better, or say why not.

        Args:
            data: its file: bytes, or a reference to them.
            keys: public keys of the stream's publishers, by id.

        Raises:
            SignatureError, ModelFormatError, ModelRejected: it is not taken.
            LimpidError: it could not be tried.
        """
        async with self._lock:
            reply = await self._hosts.aside(Audition(contest=self._swaps.contest(keys)), [data])
            trial = reply.trial
            assert isinstance(trial, Trial)
            self._check_runs()
            self._swaps.judge(trial, now_s=time.time())
            await asyncio.to_thread(self._swaps.store_weights, trial, await _bytes_of(data))
            await self._prepare(trial.model)
            self._check_runs()
            return self._swaps.promote(trial, self._run.frontier, now_s=time.time())

    async def roll_back(self) -> Swap:
        """Go back to the weights before those in use. Raises ModelRejected, StorageError."""
        async with self._lock:
            return await self._back(self._swaps.way_back(), "by request")

    def key_frame_came(self) -> None:
        """Measure what the weights in use gain on key frames that have come; not more often than makes sense."""
        self._due = True
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.ensure_future(self._measure())

    async def _measure(self) -> None:
        while self._due and not self._run.over:
            self._due = False
            try:
                async with self._lock:
                    await self._measure_once()
            except LimpidError:
                # The weights are as they were; the next key frame has it tried again.
                self._run.ledger.counts["measurements_failed"] += 1
            await asyncio.sleep(_MEASURE_S)

    async def _measure_once(self) -> None:
        if self._swaps.generic:
            return
        order = Measure(contest=self._swaps.contest({}), after_ns=self._swaps.judged_ns)
        why = self._swaps.note((await self._hosts.aside(order)).gains)
        if why:
            await self._back(self._run.ledger.stamp.model, why)

    async def _back(self, to: str, reason: str) -> Swap:
        await self._prepare(to)
        self._check_runs()
        return self._swaps.roll_back(to, self._run.frontier, reason=reason)

    def _check_runs(self) -> None:
        if self._run.over:
            raise ModelRejected("the stream has ended", where="model", hint="push to one that runs")

    async def _prepare(self, model: str) -> None:
        """Have every process that enhances the stream load and compile weights; return when they are ready."""
        stamp = replace(self._run.ledger.stamp, model=model)
        store = self._run.ledger.job.store
        places = self._run.enhancers()
        orders = [(host, Prepare(key=key, stream=stream, store=store, stamp=stamp)) for host, key, stream in places]
        await asyncio.gather(*(self._ready(host, order) for host, order in orders))

    async def _ready(self, host: Host, order: Prepare) -> None:
        """Raises what getting ready raises; a process that dies of it is replaced, and loads when it works."""
        until = time.monotonic() + _READY_S
        while time.monotonic() < until:
            try:
                reply = (await self._hosts.reply(self._hosts.issue(host, order))).reply
            except (Died, InputLost):
                return
            if reply.error is not None:
                raise reply.error
            if reply.ready:
                return
            await asyncio.sleep(_AGAIN_S)


async def _bytes_of(data: Any) -> bytes:
    found = data if isinstance(data, bytes) else await data
    assert isinstance(found, bytes)
    return found
