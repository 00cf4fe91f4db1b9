"""The service's log: every event once and in order, whoever is killed and however many collect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StorageError
from pipeline.store import parquet
from pipeline.store.eventlog import event_table, write_events
from pipeline.store.objects import Store, open_store
from pipeline.store.parquet import Part, part_name
from pipeline.store.servicelog import FOLDER, LoggedEvent, ServiceLog
from pipeline.wire.events import Event
from pipeline.wire.ids import StreamId
from tests.pipeline.store.memory import Killed, MemoryStore, WatchedStore

A, B = StreamId("a"), StreamId("b")


class SmallLog(ServiceLog):
    """Blocks of four events, so that a few are many."""

    BLOCK_EVENTS = 4


class World:
    """Streams that write events, and what they wrote."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.content: dict[str, list[str]] = {A: [], B: []}
        self.run: dict[str, list[str]] = {A: [], B: []}
        self.at = {A: (0, 0), B: (0, 0)}
        self.clock = 1_700_000_000_000_000_000

    def view(self, stream: StreamId) -> Store:
        return self.store.part(f"streams/{stream}")

    def tick(self) -> int:
        self.clock += 1_000_000_000
        return self.clock

    def write_content(self, stream: StreamId, seqs: Sequence[int], *, frames: int = 10) -> None:
        """The next part of content, with an event at each of the frames `seqs` (counted from the part's start)."""
        epoch, first = self.at[stream]
        self.put_part(stream, Part(epoch, first, first + frames), [first + s for s in seqs])
        self.content[stream] += [f"{stream}-{epoch}-{first + s}-quality.degraded" for s in seqs]
        self.at[stream] = (epoch, first + frames)

    def put_part(self, stream: StreamId, part: Part, seqs: Sequence[int]) -> None:
        if not seqs:
            return
        events = [Event(type="quality.degraded", stream=stream, epoch=part.epoch, seq=s) for s in seqs]
        n = len(events)
        table = event_table(events, captured_ns=[self.tick()] * n, pts=[0] * n, t_s=[s / 10 for s in seqs])
        assert self.view(stream).put_new(part_name("events", part), parquet.encode(table, {}))

    def next_epoch(self, stream: StreamId) -> None:
        self.at[stream] = (self.at[stream][0] + 1, 0)

    def write_run(self, stream: StreamId) -> None:
        occurrence = len(self.run[stream]) + 1
        event = Event(type="gap", stream=stream, epoch=0, seq=-1, occurrence=occurrence, data={"seconds": 1.5})
        write_events(self.view(stream), [event], captured_ns=self.tick())
        self.run[stream].append(event.event_id)

    def check(self, log: ServiceLog, appended: Iterable[str] = ()) -> list[LoggedEvent]:
        """Everything is there once, each stream's in its order, the numbers without a hole; return it."""
        found = log.read(0, limit=10_000)
        assert [event.number for event in found] == list(range(1, len(found) + 1))
        for stream in (A, B):
            ids = [e.event_id for e in found if e.stream == stream]
            assert [i for i in ids if i.endswith("quality.degraded")] == self.content[stream]
            assert [i for i in ids if "-gap-" in i] == self.run[stream]
        assert sorted(e.event_id for e in found if e.type == "stream.state_changed") == sorted(appended)
        return found


@pytest.fixture
def world() -> World:
    return World(MemoryStore())


def test_events_of_all_streams_come_in_one_order(world: World) -> None:
    world.write_content(A, [3, 7])
    world.write_run(B)
    world.write_content(A, [2])
    log = ServiceLog(world.store)
    assert log.collect([A, B]) == 4
    assert [(e.number, e.stream, e.seq, e.t_s) for e in log.read(0)] == [
        (1, "a", 3, 0.3),
        (2, "a", 7, 0.7),
        (3, "b", -1, None),
        (4, "a", 12, 1.2),
    ]
    gap = log.read(2, limit=1)[0]
    assert (gap.type, gap.data, gap.epoch, gap.event_id) == ("gap", {"seconds": 1.5}, 0, "b-0--1-gap-1")
    assert gap.captured_ns == 1_700_000_002_000_000_000
    assert log.collect([A, B]) == 0


def test_reading_on_gives_what_is_behind_a_number_and_only_what_is_asked_for(world: World) -> None:
    writer, reader = SmallLog(world.store), SmallLog(world.store)
    for _ in range(5):
        world.write_content(A, [0, 1])
        world.write_run(B)
        writer.collect([A, B])
    assert [e.number for e in reader.read(3, limit=2)] == [4, 5]
    assert [e.number for e in reader.read(0, stream="b")] == [3, 6, 9, 12, 15]
    assert [e.number for e in reader.read(6, types={"gap"})] == [9, 12, 15]
    assert reader.read(0, stream="a", types={"gap"}) == []
    assert reader.read(15) == []
    assert (reader.first(), reader.last()) == (1, 15)


def test_what_is_known_is_read_without_asking_the_store(world: World) -> None:
    """A reader that looks with `last` reads in memory what was found then; whole blocks are fetched, once."""
    writer, watched = SmallLog(world.store), WatchedStore(world.store)
    reader = SmallLog(watched)
    assert reader.read(0, fresh=False) == []
    for _ in range(5):
        world.write_content(A, [0, 1])
        writer.collect([A])
    assert reader.last() == 10
    world.write_run(B)
    writer.collect([B])
    asked = watched.counter[0]
    assert [e.number for e in reader.read(8, fresh=False)] == [9, 10]
    assert watched.counter[0] == asked
    for _ in range(2):
        assert [e.number for e in reader.read(0, fresh=False)] == list(range(1, 11))
    assert watched.counter[0] == asked + 1  # the first of the two blocks; the reader began at the second's end
    assert [e.number for e in reader.read(8)] == [9, 10, 11]


def test_an_empty_log_is_empty(world: World) -> None:
    log = ServiceLog(world.store)
    assert (log.read(0), log.first(), log.last(), log.collect([]), log.collect([A])) == ([], 1, 0, 0, 0)
    assert world.store.list() == []


def test_a_short_part_and_the_whole_one_in_its_place_tell_each_event_once(world: World) -> None:
    """[0, 7) with events at 2 and 5 is left by a run that was stopped; the next writes [0, 10) with one at 8 too."""
    world.put_part(A, Part(0, 0, 7), [2, 5])
    log = ServiceLog(world.store)
    assert log.collect([A]) == 2
    world.put_part(A, Part(0, 0, 10), [2, 5, 8])
    assert log.collect([A]) == 1
    world.view(A).delete(part_name("events", Part(0, 0, 7)))
    assert log.collect([A]) == 0
    assert [e.seq for e in ServiceLog(world.store).read(0)] == [2, 5, 8]


def test_two_parts_over_the_same_frames_at_once_tell_each_event_once(world: World) -> None:
    world.put_part(A, Part(0, 0, 7), [2, 5])
    world.put_part(A, Part(0, 0, 10), [2, 5, 8])
    log = ServiceLog(world.store)
    assert log.collect([A]) == 3
    assert [e.seq for e in log.read(0)] == [2, 5, 8]


def test_a_part_is_cut_where_a_block_ends(world: World) -> None:
    """Ten events at one frame, in blocks of four: the cursor counts inside a part, and inside a frame."""
    world.put_part(A, Part(0, 0, 10), [4] * 10)
    assert SmallLog(world.store).collect([A]) == 10
    assert SmallLog(world.store).collect([A]) == 0
    assert len(SmallLog(world.store).read(0)) == 10


def test_a_damaged_part_of_one_stream_does_not_stop_the_others(world: World) -> None:
    world.view(A).put(part_name("events", Part(0, 0, 10)), b"no parquet")
    world.write_run(B)
    assert ServiceLog(world.store).collect([A, B]) == 1


def test_a_damaged_part_of_the_log_is_told(world: World) -> None:
    world.store.put(f"{FOLDER}/part-1.json", b"")
    with pytest.raises(StorageError, match=r"no part of the event log.*may be deleted"):
        ServiceLog(world.store).read(0)


def queued(stream: StreamId) -> Event:
    return Event(type="stream.state_changed", stream=stream, epoch=0, seq=-1, data={"state": "queued"})


def test_an_appended_event_is_there_once_however_often_it_is_told(world: World) -> None:
    log = ServiceLog(world.store)
    assert log.append(queued(A), 17) == 1
    assert log.append(queued(A), 18) == 2
    assert ServiceLog(world.store).append(queued(A), 17) == 1
    assert [(e.event_id, e.data) for e in log.read(0)] == [
        ("a-0--1-stream.state_changed-17", {"state": "queued"}),
        ("a-0--1-stream.state_changed-18", {"state": "queued"}),
    ]


def test_a_deleted_stream_stays_in_the_log_and_its_id_may_be_used_again(world: World) -> None:
    log = ServiceLog(world.store)
    world.write_content(A, [1])
    world.write_run(A)
    log.collect([A])
    for name in world.view(A).list():
        world.view(A).delete(name)
    log.append(queued(A), 99, forget=True)
    world.put_part(A, Part(0, 0, 10), [1, 2])
    assert log.collect([A]) == 2
    assert log.append(queued(A), 99, forget=True) == 3  # told again: nothing goes back
    assert log.collect([A]) == 0
    assert [(e.type, e.seq) for e in log.read(0)][2:] == [
        ("stream.state_changed", -1),
        ("quality.degraded", 1),
        ("quality.degraded", 2),
    ]


def test_what_is_too_old_goes_block_by_block_and_the_store_stays_small(world: World) -> None:
    """Blocks of 4, 8 kept at least: after 103 events the highest whole block ends at 100, so 93 to 103 are kept."""
    log, reader = SmallLog(world.store, keep_events=8), SmallLog(world.store, keep_events=8)
    for _ in range(103):
        world.write_run(A)
        log.collect([A])
        assert len(world.store.list(FOLDER)) <= 2 + 4 + 1
        assert reader.read(reader.last() - 1)[0].event_id == world.run[A][-1]
    assert (log.first(), log.last()) == (93, 103)
    for each in (log, reader, SmallLog(world.store)):
        assert [e.event_id for e in each.read(0)] == world.run[A][92:]
        assert [e.number for e in each.read(97)] == list(range(98, 104))


@pytest.mark.parametrize("others", [0, 9])
def test_a_part_of_the_same_name_in_a_new_directory_is_read(world: World, others: int) -> None:
    """The first log has found nothing more in [0, 10); another one forgets the stream, and blocks pass."""
    log, other = SmallLog(world.store), SmallLog(world.store)
    world.put_part(A, Part(0, 0, 7), [2, 5])
    log.collect([A])
    world.put_part(A, Part(0, 0, 10), [2, 5])
    log.collect([A])
    for name in world.view(A).list():
        world.view(A).delete(name)
    other.append(queued(A), 99, forget=True)
    for _ in range(others):
        world.write_run(A)
        other.collect([A])
    world.put_part(A, Part(0, 0, 10), [4])
    assert log.collect([A]) == 1
    assert log.read(0, stream="a")[-1].seq == 4


class Glimpse(MemoryStore):
    """A listing beside a writer: the first look does not show the first part."""

    looks = 0
    gets = 0

    def list(self, prefix: str = "") -> list[str]:
        names = super().list(prefix)
        if prefix == "tables/events/part-":
            Glimpse.looks += 1
            return names[1:] if Glimpse.looks == 1 else names
        return names

    def get(self, name: str) -> bytes:
        Glimpse.gets += name.endswith(".parquet")
        return super().get(name)

    def part(self, prefix: str) -> Glimpse:
        return Glimpse(self.objects, f"{self.lead}{prefix}/")


def test_a_listing_that_misses_a_part_loses_none() -> None:
    world = World(Glimpse())
    world.write_content(A, [1])
    world.write_content(A, [1])
    Glimpse.looks = 0
    log = ServiceLog(world.store)
    log.collect([A])
    world.check(log)


def test_a_part_that_holds_nothing_more_is_not_read_again() -> None:
    world = World(Glimpse())
    log = ServiceLog(world.store)
    world.put_part(A, Part(0, 0, 7), [2])
    log.collect([A])
    world.put_part(A, Part(0, 0, 10), [2])
    log.collect([A])
    before = Glimpse.gets
    assert log.collect([A]) == 0
    assert Glimpse.gets == before


# --- kills and races ---------------------------------------------------------------------------------------------

Step = tuple[str, int, int]  # what, a number, at which operation the process dies (below 0: it does not)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["content", "run", "epoch", "collect", "append"]),
        st.integers(0, 1 << 12),
        st.integers(-40, 40),
    ),
    max_size=25,
)


def play(world: World, step: Step, log: ServiceLog, appended: dict[int, str]) -> None:
    what, number, _ = step
    stream = (A, B)[number % 2]
    if what == "content":
        world.write_content(stream, sorted(number >> shift & 7 for shift in range(number % 5)))
    elif what == "run":
        world.write_run(stream)
    elif what == "epoch":
        world.next_epoch(stream)
    elif what == "collect":
        log.collect([A, B])
    else:
        # The caller tells it again until it has heard that it was done.
        at_ns = number % 6
        event = queued(A)
        appended[at_ns] = f"{event.event_id}-{at_ns}" if at_ns else event.event_id
        log.append(event, at_ns)


@given(steps=STEPS, before=st.booleans(), small=st.booleans())
@settings(max_examples=150, deadline=None)
def test_whoever_is_killed_between_two_operations_loses_and_doubles_nothing(
    steps: list[Step], before: bool, small: bool
) -> None:
    world = World(MemoryStore())
    kind = SmallLog if small else ServiceLog
    appended: dict[int, str] = {}
    log: ServiceLog | None = None
    for step in steps:

        def dies(n: int, last: int = step[2]) -> None:
            if n == last:
                raise Killed

        watched = WatchedStore(world.store, before=dies) if before else WatchedStore(world.store, after=dies)
        if step[0] in ("collect", "append") and step[2] >= 0:
            try:
                play(world, step, kind(watched), appended)
            except Killed:
                continue
        else:
            log = log or kind(world.store)
            play(world, step, log, appended)
    last = kind(world.store)
    last.collect([A, B])
    for at_ns in sorted(appended):
        last.append(queued(A), at_ns)
    found = world.check(last, appended.values())
    assert log is None or log.read(0, limit=10_000) == found


def interrupted(store: Store, at: int, meanwhile: Callable[[], None], kind: type[ServiceLog]) -> ServiceLog:
    """A log whose process is held up before its operation number `at`, while `meanwhile` happens."""

    def before(n: int) -> None:
        if n == at:
            meanwhile()

    return kind(WatchedStore(store, before=before))


@pytest.mark.parametrize("more", [0, 1, 4, 9, 30])
@pytest.mark.parametrize("held_at", range(24))
def test_of_two_collectors_at_any_two_operations_each_event_is_taken_once(more: int, held_at: int) -> None:
    """While one is held up, the other takes all, and up to 30 events more, so that blocks come and parts go."""
    world = World(MemoryStore())
    world.write_content(A, [1, 2, 3])
    world.write_run(B)

    def meanwhile() -> None:
        other = SmallLog(world.store)
        other.collect([A, B])
        for _ in range(more):
            world.write_run(A)
            other.collect([A, B])

    first = interrupted(world.store, held_at, meanwhile, SmallLog)
    first.collect([A, B])
    world.write_run(B)
    first.collect([A, B])
    world.check(first)
    world.check(SmallLog(world.store))


@pytest.mark.parametrize("held_at", range(4))
def test_one_who_was_held_up_while_the_blocks_themselves_went_does_not_write_into_the_past(held_at: int) -> None:
    """50 events pass, of which 8 are kept: the name that the sleeper wants is free again, and means nothing."""
    world = World(MemoryStore())
    world.write_run(A)

    def meanwhile() -> None:
        other = SmallLog(world.store, keep_events=8)
        for _ in range(50):
            world.write_run(B)
            other.collect([A, B])

    sleeper = interrupted(world.store, held_at, meanwhile, SmallLog)
    number = sleeper.append(queued(A), 5)
    SmallLog(world.store, keep_events=8).collect([A, B])
    found = SmallLog(world.store).read(0)
    assert [e.number for e in found] == list(range(found[0].number, found[-1].number + 1))
    assert len({e.event_id for e in found}) == len(found)
    assert [e.number for e in found if e.type == "stream.state_changed"] == [number]


@given(
    outer=st.integers(0, 30),
    inner=st.lists(
        st.tuples(st.sampled_from(["content", "run", "collect", "append"]), st.integers(0, 255)), max_size=12
    ),
    rounds=st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_two_collectors_in_any_interleaving(outer: int, inner: list[tuple[str, int]], rounds: int) -> None:
    world = World(MemoryStore())
    appended: dict[int, str] = {}
    other = SmallLog(world.store)

    def meanwhile() -> None:
        for what, number in inner:
            play(world, (what, number, -1), other, appended)

    for _ in range(rounds):
        world.write_content(A, [0, 0, 5])
        world.write_run(B)
        interrupted(world.store, outer, meanwhile, SmallLog).collect([A, B])
    other.collect([A, B])
    world.check(other, appended.values())
    world.check(SmallLog(world.store), appended.values())


def test_threads_on_a_disk(tmp_path: Path) -> None:
    """Three collectors, a writer and a reader at once, on files."""
    world = World(open_store(str(tmp_path)))
    done = threading.Event()
    seen: list[int] = []
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # told by the test
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def collect() -> None:
        log = SmallLog(open_store(str(tmp_path)))
        while not done.is_set():
            log.collect([A, B])
        log.collect([A, B])

    def read() -> None:
        log = SmallLog(open_store(str(tmp_path)))
        while not done.is_set():
            seen.extend(e.number for e in log.read(seen[-1] if seen else 0))

    threads = [guarded(collect) for _ in range(3)] + [guarded(read)]
    for number in range(40):
        world.write_run(A)
        world.write_content(B, [number % 10])
    done.set()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(world.check(SmallLog(world.store))) == 80
    assert seen == list(range(1, len(seen) + 1))
