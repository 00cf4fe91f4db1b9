"""One stream on Ray: hears what hosts answer, lets the flow decide, and carries its actions out."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from actors.calls import Close, Device, OpenBox, OpenUri, ReadOn, WorkOn, packed
from actors.hosts import ANYWHERE, Answer, Call, Died, Host, Hosts, InputLost
from actors.meters import Meters
from actors.pool import Pool, Task
from actors.seats import Places, Seat
from actors.sizes import running_of, wanted_of
from actors.slab import Gone
from actors.transport import Ref
from pipeline.config import Settings
from pipeline.errors import LimpidError, SourceError, StageError
from pipeline.flow.boxes import SOURCE, Box
from pipeline.flow.job import Outcome, Progress
from pipeline.flow.ledger import Ledger
from pipeline.flow.signals import (
    Arrived,
    Completed,
    Done,
    EpochDone,
    Fail,
    Failed,
    HostDied,
    Lost,
    Open,
    OpenSource,
    Pull,
    Signal,
    SourceEnded,
    SourceLost,
    Submit,
    TakeApart,
)
from pipeline.plan.admit import Running
from pipeline.plan.ladder import Ladder, LadderRule, Rung
from pipeline.plan.turns import Standing
from pipeline.stage import StageEnv
from pipeline.wire.ids import StreamId

_PACE_S = 0.07  # between two reads of a live source where cores are few: two frames at 25 a second
_DEATHS = 5  # of one box's process in a row, without an answer in between and with nothing to blame
_REPLAYS = 3  # from one watermark
_CLOSE_S = 10.0  # that stages have for closing what they hold
_CLOSE_SOURCE_S = 1.0  # that a source has: it holds nothing, and may be hanging

Verdict = tuple[str, LimpidError | None]


class StreamRun:
    """One run of one stream.

    Args:
        ledger: what is durable of it.
        boxes: the plan.
        hosts, places, pool_of: processes, shared with the supervisor's other streams.
        per_box: hosts of one per-stream box over all streams, at most.
        progressed: called whenever more is durable.
    """

    def __init__(
        self,
        ledger: Ledger,
        boxes: tuple[Box, ...],
        *,
        hosts: Hosts,
        places: Places,
        per_box: int,
        pool_of: Callable[[Box], Pool],
        progressed: Callable[[], None],
    ) -> None:
        self.ledger = ledger
        self._job = ledger.job
        self._boxes = boxes
        self._hosts, self._places, self._per_box, self._pool_of = hosts, places, per_box, pool_of
        self._progressed = progressed
        self._flow = ledger.flow(boxes)
        self._round = 0  # of the flow: counted up when the stream is taken up anew; answers to earlier ones are void
        self._replays: dict[int, int] = {}
        self._seats: dict[str, Seat] = {}
        self._pools: set[Pool] = set()
        self._source = Seat(SOURCE)
        self._read_error: LimpidError | None = None
        self._deaths: dict[str, int] = {}
        self._verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._last_sink_s = 0.0
        self._gap_s = 0.0
        networks = any(node.networks for box in boxes for node in box.nodes)
        encodes = any(node.stage.spec.name == "encode" for box in boxes for node in box.nodes)
        there = {Rung.BICUBIC: networks and bool(ledger.stamp.model), Rung.LIGHTER_ENCODE: encodes}  # in this graph
        wanted = wanted_of(self._job.settings, live=self._job.live)
        self._rungs = tuple(rung for rung in wanted.rungs if there.get(rung, True))
        if self._job.rung in self._rungs[1:] and ledger.fresh:
            ledger.take_rung(self._job.rung, 0, 0, "there was no room for more when it began")
        self._meters = Meters(ledger.rung)
        self.aim(self._job.settings.live.max_lag_s, self._job.settings.live.priority)

    async def run(self) -> Outcome:
        """Carry the flow out to the stream's end, or until `stop`."""
        if not self._verdict.done():
            self._guarded(lambda: self._carry_out(self._flow.start()))
        state, error = await self._verdict
        self._round += 1
        await self._close()
        if state == "completed" and self._read_error is not None:
            state, error = "failed", self._read_error
        self.ledger.counts["gap_ms_max"] = round(1000 * self._gap_s)
        return self.ledger.finish(state, error)

    def stop(self) -> None:
        """End early: what is written is closed and playable, and a later run takes it up."""
        self._end("stopped")

    def status(self) -> Progress:
        """Return how the stream is doing."""
        return self._meters.status(self.ledger.progress(), time.monotonic())

    def aim(self, max_lag_s: float, priority: int) -> None:
        """Keep this lag from now on, and have this priority among the streams."""
        self._max_lag_s, self._priority = max_lag_s, priority
        rule = LadderRule(target_s=max_lag_s, rungs=self._rungs)
        self._ladder = Ladder(rule, Rung(self._meters.rung)) if self._rungs[1:] else None

    def running(self) -> Running:
        """Return the stream as the rules of size see it."""
        wanted = wanted_of(self._job.settings, live=self._job.live)
        steady = self._meters.settled(time.monotonic())
        return running_of(wanted, self.status(), rung=self._job.rung, steady=steady)

    @property
    def live(self) -> bool:
        """Whether its source passes whether it is read or not."""
        return self._job.live

    def standing(self, key: str) -> Standing | None:
        """Return how the stream stands beside the others; None where nothing can be made lighter, or lags tell nothing.

        Args:
            key: that it has there.
        """
        now_s = time.monotonic()
        if self._ladder is None or self._verdict.done() or not self._meters.settled(now_s):
            return None
        return Standing(
            key=key,
            priority=self._priority,
            rung=self._ladder.rung,
            network=Rung.BICUBIC in self._rungs,
            well=self._ladder.is_well(now_s),
            late=self._ladder.is_late(now_s),
            can_give=self._ladder.can_give(now_s),
        )

    def tick(self, *, may_return: bool, give: bool) -> None:
        """Bring the stream's effort to what its lag allows; to be called a few times a second.

        Args:
            may_return: there is room for heavier work.
            give: another stream needs the cores.
        """
        if self._ladder is None or self._verdict.done():
            return
        now_s = time.monotonic()
        if not self._meters.settled(now_s):
            return
        rung = self._ladder.step(self._meters.lag_now_s(now_s), 0, now_s, may_return=may_return, give=give)
        if rung != self._meters.rung:
            self._guarded(lambda: self._take_rung(int(rung), "another stream is late" if give else ""))

    def _take_rung(self, rung: int, why: str) -> None:
        lag_s = self._meters.lag_now_s(time.monotonic())
        reason = why or f"lag is {lag_s:.2f} s, to be kept below {self._max_lag_s:g} s"
        self.ledger.take_rung(rung, *self.frontier(), reason)
        self._meters.rung = rung

    @property
    def over(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._verdict.done()

    def frontier(self) -> tuple[int, int]:
        """Return the first frame (epoch, number) that no stage has met, nor will in what was submitted."""
        return self._flow.epoch.epoch, self._flow.epoch.frontier()

    def enhancers(self) -> list[tuple[Host, str, StreamId | None]]:
        """Return where the stream's networks run: the process, and the box's key and stream, as WorkOn has them."""
        pooled = [(host, pool.key, None) for pool in self._pools if pool.networks for host in pool.workers]
        seats = [seat for seat in self._seats.values() if seat.networks and seat.host is not None and seat.host.alive]
        return [*pooled, *((seat.host, seat.name, self._job.stream) for seat in seats if seat.host is not None)]

    def pids(self) -> dict[str, int]:
        """Return which process has which role, for tests and for people who look into a run."""
        roles = {name: seat.host.pid for name, seat in self._seats.items() if seat.host and seat.host.alive}
        if self._source.host and self._source.host.alive:
            roles[SOURCE] = self._source.host.pid
        for pool in self._pools:
            roles |= {f"{pool.name}.{n}": host.pid for n, host in enumerate(pool.workers)}
        return roles

    # --- signals in, actions out -----------------------------------------------------------------------------

    def _hear(self, signal: Signal[Ref]) -> None:
        if not self._verdict.done():
            self._guarded(lambda: self._carry_out(self._flow.on(signal)))

    def _carry_out(self, actions: Sequence[Any]) -> None:
        for action in actions:
            done = self.ledger.progress().frames_done
            self.ledger.carry_out(action)
            if self.ledger.progress().frames_done != done:
                self._progressed()
            match action:
                case Submit(box=Box(pooled=True)):
                    self._submit_pooled(action)
                case Submit():
                    self._seats[action.box.name].post(partial(self._feed, self._round, action))
                case Pull():
                    self._source.post(partial(self._read, self._round))
                case Open():
                    self._open(action)
                case OpenSource():
                    self._open_source(action)
                case EpochDone():
                    self._leave_seats(keep=True)
                case TakeApart():
                    self._leave_seats(keep=False)
                case Fail(error=error):
                    self._end("failed", error)
                case Completed():
                    self._end("completed")

    def _end(self, state: str, error: LimpidError | None = None) -> None:
        if not self._verdict.done():
            self._verdict.set_result((state, error))

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do something; what goes wrong in it ends the stream, not the supervisor."""
        try:
            act()
        except LimpidError as error:
            self._end("failed", error)
        except Exception as error:  # noqa: BLE001  (the stream's border: a bug of ours must not end other streams)
            what = f"the supervisor raised {type(error).__name__}: {error}"
            self._end("failed", LimpidError(what, where=self._job.stream, hint="this is a bug: report it"))

    def _take_up(self, why: str) -> None:
        """Begin again from what is durable, because something that was made is gone."""
        at = self.ledger.progress().frames_done
        self._replays[at] = self._replays.get(at, 0) + 1
        if self._replays[at] > _REPLAYS:
            self._end("failed", StageError(why, stage="transport", span=str(at), hint="see the log of Ray"))
            return
        self.ledger.counts["replays"] += 1
        self._round += 1
        self._leave_seats(keep=True)
        self._flow = self.ledger.flow(self._boxes)
        self._guarded(lambda: self._carry_out(self._flow.start()))

    # --- the source ------------------------------------------------------------------------------------------

    def _open_source(self, action: OpenSource) -> None:
        host = self._source.host
        if host is None or not host.alive:
            waiting = self._source.host is None and bool(self._source.backlog)
            reader = self._hosts.reader_of(self._job.stream)
            if reader is not None:
                self._source = Seat(SOURCE)
                self._settle_on(self._source, reader)
            elif not waiting:
                self._source = Seat(SOURCE)
                self._hosts.spawn(self._find_host(self._source))
        order = OpenUri(
            stream=self._job.stream,
            uri=self._job.source,
            settings=self._job.settings.source,
            epoch=action.epoch,
            packet=action.packet,
        )
        self._source.post(partial(self._send, order))

    def _read(self, asked: int, host: Host) -> None:
        planned = self._job.live and self._job.settings.flow.plan == "auto"
        crowded = planned and len(self._boxes) == 1  # see sizes.lanes_of
        freed = self._hosts.custody.freed(host.name)
        order = ReadOn(stream=self._job.stream, free=freed, pace_s=_PACE_S if crowded else 0.0)
        self._hosts.spawn(self._on_read(asked, self._hosts.issue(host, order, exports=1)))

    async def _on_read(self, asked: int, call: Call) -> None:
        answer = await self._answer(asked, call)
        if answer is None:
            return
        reply, entries = answer.reply, answer.outputs.get(SOURCE, ())
        self._meters.read(reply, time.monotonic())
        if reply.error is None and not entries and not reply.ended:
            self._source.post(partial(self._read, asked))  # nothing came for a while: the flow still waits
        elif reply.error is not None:
            # What was read is still processed; the run then says that it is not all.
            self._read_error = reply.error
            self._hear(SourceEnded())
        elif not entries:
            self._hear(SourceEnded())
        else:
            entry = entries[0]
            self._deaths.pop(SOURCE, None)
            if reply.video is not None:
                video, gap = reply.video, reply.gap
                self._guarded(lambda: self.ledger.epoch_began(entry.span.epoch, video, gap))
            self._hear(Arrived(entry=entry))

    # --- per-stream boxes ------------------------------------------------------------------------------------

    def _open(self, action: Open) -> None:
        name = action.box.name
        old = self._seats.pop(name, None)
        seat = self._seats[name] = Seat(
            name,
            generation=action.generation,
            alone=action.alone,
            networks=action.box.networks,
            device=self._device_of(action.box),
        )
        order = OpenBox(
            key=name,
            box=action.box,
            env=StageEnv(
                device=self._device_of(action.box).torch,
                stream=self._job.stream,
                epoch=self._flow.epoch.epoch,
                store=self._job.store,
            ),
            stream=self._job.stream,
            generation=action.generation,
            checkpoint=action.checkpoint,
            schedule=self.ledger.schedule(self._flow.epoch.epoch),
            set_aside=action.set_aside,
        )
        seat.post(partial(self._send, order))
        if old is not None and old.host is not None and old.host.alive and not action.alone:
            seat.sit(old.host)
            return
        if old is not None and old.host is not None:
            self._leave(old, keep=False)
        host = None if action.alone else self._places.find(name, self._per_box)
        if host is not None:
            self._settle_on(seat, host)
        else:
            self._hosts.spawn(self._find_host(seat))

    def _device_of(self, box: Box) -> Device:
        return device_of(self._job.settings) if box.networks else ANYWHERE

    def _feed(self, asked: int, action: Submit[Ref], host: Host) -> None:
        seat = self._seats.get(action.box.name)
        if seat is None or seat.generation != action.generation or asked != self._round:
            return
        order = self._order(action, key=action.box.name)
        inputs = [[entry.ref for entry in entries] for entries in action.inputs]
        call = self._hosts.work(host, order, inputs, exports=len(action.box.exports))
        self._hosts.spawn(self._on_work(asked, action, call))

    async def _on_work(self, asked: int, action: Submit[Ref], call: Call) -> None:
        answer = await self._answer(asked, call)
        if answer is not None:
            self._worked(action, answer)

    async def _find_host(self, seat: Seat) -> None:
        try:
            host = await self._hosts.take(networks=seat.networks, device=seat.device)
        except LimpidError as error:
            self._end("failed", error)
            return
        if self._verdict.done() or (seat is not self._source and self._seats.get(seat.name) is not seat):
            self._hosts.put_back(host)
            return
        self._settle_on(seat, host)

    def _settle_on(self, seat: Seat, host: Host) -> None:
        host.unwatch(self._on_death)
        host.watch(self._on_death)
        if not seat.alone:
            self._places.join(seat.name, host)
        self._guarded(lambda: seat.sit(host))

    # --- pooled boxes ----------------------------------------------------------------------------------------

    def _submit_pooled(self, action: Submit[Ref]) -> None:
        pool = self._pool_of(action.box)
        self._pools.add(pool)
        asked = self._round
        pool.submit(
            Task(
                stream=self._job.stream,
                order=self._order(action, key=pool.key),
                inputs=[[entry.ref for entry in entries] for entries in action.inputs],
                answered=lambda answer: self._worked(action, answer) if asked == self._round else None,
                lost=lambda: self._hear(Lost(ticket=action.ticket)) if asked == self._round else None,
                failed=lambda error: self._call_failed(asked, error),
            ),
            alone=action.alone,
        )

    # --- answers ---------------------------------------------------------------------------------------------

    async def _answer(self, asked: int, call: Call) -> Answer | None:
        """Return a call's answer; None where there is none, or nobody waits for it any more."""
        try:
            answer = await self._hosts.reply(call)
        except Died:
            return None  # _on_death has seen to it
        except (InputLost, LimpidError) as error:
            self._call_failed(asked, error)
            return None
        return answer if asked == self._round else None

    def _call_failed(self, asked: int, error: Exception) -> None:
        if asked != self._round or self._verdict.done():
            return
        if isinstance(error, LimpidError):
            self._end("failed", error)
        else:
            self._take_up(str(error))

    def _worked(self, action: Submit[Ref], answer: Answer) -> None:
        reply = answer.reply
        if isinstance(reply.error, Gone):
            self._take_up(str(reply.error))
            return
        if reply.error is not None:
            self.ledger.counts["retries"] += 0 if reply.fatal else 1
            self._hear(Failed(ticket=action.ticket, error=reply.error, node=reply.node, fatal=reply.fatal))
            return
        self._deaths.pop(action.box.name, None)
        now = time.monotonic()
        self._meters.worked(action.box, reply, now)
        if action.box is self._boxes[-1] and self._meters.rung:
            self.ledger.counts["made_lighter.overload"] += reply.frames
        if action.box.sinks:
            if self._last_sink_s and self.ledger.progress().frames_done:  # starting is no gap
                self._gap_s = max(self._gap_s, now - self._last_sink_s)
            self._last_sink_s = now
        self._hear(
            Done(
                ticket=action.ticket,
                outputs=answer.outputs,
                checkpoint=reply.checkpoint,
                ended=reply.ended,
                reached=reply.reached,
            )
        )

    def _on_death(self, host: Host) -> None:
        if self._verdict.done():
            return
        if self._source.host is host and self._dies(SOURCE):
            what = "whoever reads the source dies"
            self._end("failed", SourceError(what, where=self._job.source, hint="try another file"))
            return
        if self._source.host is host:
            self.ledger.counts["restarts.ingest"] += 1
            self._hear(SourceLost())
        for seat in [s for s in self._seats.values() if s.host is host]:
            if self._dies(seat.name):
                why = "its process dies as soon as it is there"
                self._end("failed", StageError(why, stage=seat.name, span="", hint="see the log of Ray"))
                return
            self._hear(HostDied(box=seat.name, generation=seat.generation))

    def _dies(self, role: str) -> bool:
        """Count a death without an answer since the last one; say whether they are too many."""
        self._deaths[role] = self._deaths.get(role, 0) + 1
        return self._deaths[role] > _DEATHS

    # --- orders ----------------------------------------------------------------------------------------------

    def _order(self, action: Submit[Ref], *, key: str) -> WorkOn:
        return WorkOn(
            key=key,
            stream=None if action.box.pooled else self._job.stream,
            generation=action.generation,
            span=action.span,
            inputs=(),
            finish=action.finish,
            schedule=self.ledger.schedule(action.span.epoch),
            store=self._job.store,
            set_aside=action.set_aside,
        )

    def _send(self, order: object, host: Host) -> None:
        """Send an order whose answer says nothing but that it has been carried out."""
        self._hosts.spawn(self._acknowledged(self._round, self._hosts.issue(host, order)))

    async def _acknowledged(self, asked: int, call: Call) -> None:
        answer = await self._answer(asked, call)
        if answer is not None and answer.reply.error is not None:
            self._end("failed", answer.reply.error)

    # --- leaving ---------------------------------------------------------------------------------------------

    def _leave_seats(self, *, keep: bool) -> None:
        """Have every box closed; `keep`: its host is for the same box again."""
        seats, self._seats = self._seats, {}
        for seat in seats.values():
            seat.post(partial(self._send, Close(stream=self._job.stream)))
            self._leave(seat, keep=keep)

    def _leave(self, seat: Seat, *, keep: bool) -> None:
        host = seat.host
        if host is None:
            return
        host.unwatch(self._on_death)
        if seat.alone:
            self._hosts.discard(host)
        elif self._places.leave(seat.name, host, keep=keep and host.alive):
            self._hosts.put_back(host)

    async def _close(self) -> None:
        """Close what the stream has everywhere; a host that does not answer in time is ended."""
        for pool in self._pools:
            pool.forget(self._job.stream)
        seats = [s for s in (*self._seats.values(), self._source) if s.host is not None and s.host.alive]
        self._seats = {}
        closing: list[Coroutine[Any, Any, None]] = [self._close_seat(seat) for seat in seats]
        await asyncio.gather(*closing)

    async def _close_seat(self, seat: Seat) -> None:
        host = seat.host
        assert host is not None
        host.unwatch(self._on_death)
        try:
            closed = self._hosts.issue(host, Close(stream=self._job.stream))
            await asyncio.wait_for(self._hosts.reply(closed), _CLOSE_SOURCE_S if seat is self._source else _CLOSE_S)
        except (TimeoutError, InputLost, LimpidError):
            self._hosts.died(host)
        except Died:
            return
        self._leave(seat, keep=False)


def device_of(settings: Settings) -> Device:
    """Return what processes that run networks are pinned to."""
    flow = settings.flow
    return Device(resource=flow.device, share=flow.device_share) if flow.device else ANYWHERE


def key_of(box: Box) -> str:
    """Return what tells a pooled box from others: its stages and all of their settings."""
    return f"{box.name}-{hashlib.sha256(packed(box)).hexdigest()[:16]}"
