"""Tables are functions of the content: whatever the batches were, whoever was killed, they hold the same bytes."""

from __future__ import annotations

import gc
import json
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, StorageError
from pipeline.stage import StageEnv, Work
from pipeline.stages.record import Record, RecordConfig
from pipeline.store.objects import open_store
from pipeline.store.parquet import Part, part_name, read_table
from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.items import cut
from pipeline.wire.results import GuardReport, QualityReport, RefineReport

A = StreamId("a")
SIZE = Size(width_px=3, height_px=1)
CONFIG = RecordConfig(part_frames=10)
N = 47


def frames(
    stop: int, *, epoch: int = 0, first_pts: int = 0, tick: Fraction = Fraction(1, 10), duration: int = 1
) -> FrameBatch:
    return FrameBatch(
        span=Span(stream=A, epoch=epoch, start=0, stop=stop),
        size=SIZE,
        color=ColorSpec(),
        time_base=tick,
        pts=first_pts + np.arange(stop, dtype=np.int64) * max(duration, 1),
        duration=np.full(stop, duration, np.int64),
        captured_ns=1_700_000_000_123_456_789 + np.arange(stop, dtype=np.int64) * 10**8,
        keyframe=np.arange(stop) % 12 == 0,
        data=np.zeros((stop, SIZE.frame_bytes), np.uint8),
    )


def quality(stop: int, *, epoch: int = 0, black: slice = slice(0, 0)) -> QualityReport:
    is_black = np.zeros(stop, np.bool_)
    is_black[black] = True
    return QualityReport(
        span=Span(stream=A, epoch=epoch, start=0, stop=stop),
        exposure=np.full(stop, 0.75, np.float32),
        sharpness=np.full(stop, 0.5, np.float32),
        noise=np.linspace(0, 1, stop, dtype=np.float32),
        black=is_black,
        frozen=np.zeros(stop, np.bool_),
    )


def guard(stop: int) -> GuardReport:
    return GuardReport(
        span=Span(stream=A, epoch=0, start=0, stop=stop),
        enhanced=np.arange(stop) % 2 == 0,
        stability=np.linspace(0, 1, stop, dtype=np.float32),
        restored_blocks=np.zeros(stop, np.int32),
        model_version="f-edsr-x2@1",
    )


INPUTS = (frames(N), quality(N, black=slice(8, 30)), guard(N))


def opened(place: Path, *, epoch: int = 0, config: RecordConfig = CONFIG) -> Record:
    stage = Record(config)
    stage.open(StageEnv(stream=A, epoch=epoch, store=str(place)))
    return stage


def work(start: int, stop: int, inputs: tuple[FrameBatch, *tuple[object, ...]] = INPUTS) -> Work[FrameBatch]:
    item, *side = (cut(i, start, stop) for i in inputs)
    assert isinstance(item, FrameBatch)
    return Work(item=item, span=item.span, side=tuple(side))


def feed(
    stage: Record, start: int, stop: int, batch: int, inputs: tuple[FrameBatch, *tuple[object, ...]] = INPUTS
) -> None:
    for first in range(start, stop, batch):
        assert stage.process(work(first, min(first + batch, stop), inputs)) == ()


def contents(place: Path) -> dict[str, bytes]:
    store = open_store(str(place))
    return {name: store.get(name) for name in store.list()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("undisturbed")
    stage = opened(place)
    feed(stage, 0, N, 8)
    stage.finish()
    return contents(place)


def test_parts_end_on_the_grid_and_only_the_last_is_shorter(undisturbed: dict[str, bytes]) -> None:
    """Black begins at 8 and is told 10 ticks later, at 18; it ends at 30, told at 40: events of two parts."""
    spans = ["0-10", "10-20", "20-30", "30-40", "40-47"]
    expected = [f"tables/{table}/part-0-{span}.parquet" for table in ("frames", "quality") for span in spans]
    expected += ["tables/events/part-0-10-20.parquet", "tables/events/part-0-40-47.parquet"]
    assert sorted(undisturbed) == sorted(expected)


@pytest.mark.parametrize("batch", [1, 3, 10, N])
def test_batch_sizes_do_not_show(tmp_path: Path, undisturbed: dict[str, bytes], batch: int) -> None:
    stage = opened(tmp_path)
    feed(stage, 0, N, batch)
    stage.finish()
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize(
    ("acked_at", "killed_at"),
    [(a, k) for a in (0, 7, 14, 21, 42) for k in (0, 7, 14, 21, 42, N) if a <= k],
)
def test_a_killed_record_is_replaced_without_a_trace(
    tmp_path: Path, undisturbed: dict[str, bytes], acked_at: int, killed_at: int
) -> None:
    """The last snapshot that arrived was taken at `acked_at`; the object went on until `killed_at` and is gone."""
    dead = opened(tmp_path)
    feed(dead, 0, acked_at, 7)
    snapshot = dead.snapshot()
    feed(dead, acked_at, killed_at, 7)
    assert snapshot.after == snapshot.resume_from == acked_at // 10 * 10
    stage = opened(tmp_path)
    stage.restore(snapshot)
    feed(stage, snapshot.resume_from, N, 8)
    stage.finish()
    assert contents(tmp_path) == undisturbed


def test_frames_that_were_seen_are_passed_over(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    stage = opened(tmp_path)
    feed(stage, 0, 14, 7)
    feed(stage, 0, 7, 7)
    feed(stage, 11, N, 8)
    stage.finish()
    assert contents(tmp_path) == undisturbed


def test_a_stopped_run_goes_on_from_before_its_last_part(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Stopped at 25, killed before the manifest said so: the short part 20-25 makes way for 20-30."""
    stopped = opened(tmp_path)
    feed(stopped, 0, 25, 5)
    snapshot = stopped.snapshot()
    stopped.finish()
    assert part_name("frames", Part(0, 20, 25)) in contents(tmp_path)
    stage = opened(tmp_path)
    stage.restore(snapshot)
    feed(stage, 20, N, 8)
    stage.finish()
    assert contents(tmp_path) == undisturbed


def test_a_stopped_run_goes_on_behind_its_last_part(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Stopped at 25 and saved so: 20-25, then 25-30; the rows are those of the undisturbed run."""
    stopped = opened(tmp_path / "stopped")
    feed(stopped, 0, 25, 5)
    stopped.finish()
    stage = opened(tmp_path / "stopped")
    stage.restore(stopped.snapshot())
    feed(stage, 25, N, 8)
    stage.finish()
    whole = open_store(str(tmp_path / "whole"))
    for name, data in undisturbed.items():
        whole.put(name, data)
    for table in ("frames", "quality", "events"):
        assert read_table(open_store(str(tmp_path / "stopped")), table).equals(read_table(whole, table))


def test_rows_say_what_the_inputs_said(tmp_path: Path) -> None:
    stage = opened(tmp_path)
    feed(stage, 0, N, 8)
    stage.finish()
    store = open_store(str(tmp_path))
    row = read_table(store, "frames").to_pylist()[12]
    captured = row.pop("captured_at")
    assert captured.timestamp() == pytest.approx(1_700_000_001.323456, abs=1e-6)
    assert row == {
        "stream_id": "a", "epoch": 0, "seq": 12, "pts": 12, "t_s": 1.2, "width": 3, "height": 1, "key_frame": True,
        "enhanced": True, "refined": False, "model_version": "f-edsr-x2@1", "scene_id": None, "scene_state": None,
    }  # fmt: skip
    rows = read_table(store, "quality").to_pylist()
    assert rows[12]["flags"] == ["black"] and rows[40]["flags"] == []
    assert (rows[12]["exposure"], rows[12]["sharpness"], rows[12]["colour"]) == (0.75, 0.5, None)
    assert rows[46]["noise"] == rows[46]["stability"] == 1.0
    assert (rows[22]["stable"], rows[23]["stable"]) == (False, True)  # 22/46 < 0.5 = 23/46


def test_refined_frames_are_said(tmp_path: Path) -> None:
    stage = opened(tmp_path)
    item = frames(5)
    feed(stage, 0, 5, 2, (item, RefineReport(span=item.span, refined=np.arange(5) % 2 == 1)))
    stage.finish()
    rows = read_table(open_store(str(tmp_path)), "frames").to_pylist()
    assert [row["refined"] for row in rows] == [False, True, False, True, False]


def test_without_side_inputs_there_are_frames_only(tmp_path: Path) -> None:
    stage = opened(tmp_path)
    feed(stage, 0, 5, 5, (frames(5),))
    stage.finish()
    assert list(contents(tmp_path)) == ["tables/frames/part-0-0-5.parquet"]
    row = read_table(open_store(str(tmp_path)), "frames").to_pylist()[0]
    assert (row["enhanced"], row["model_version"]) == (False, None)


def test_without_guard_there_is_no_stability(tmp_path: Path) -> None:
    stage = opened(tmp_path)
    feed(stage, 0, 5, 5, (frames(5), quality(5)))
    stage.finish()
    row = read_table(open_store(str(tmp_path)), "quality").to_pylist()[0]
    assert (row["stability"], row["stable"], row["exposure"]) == (None, None, 0.75)


def test_frames_that_were_set_aside_have_a_row_that_says_so(tmp_path: Path) -> None:
    report = quality(3)
    for column in (report.exposure, report.sharpness, report.noise):
        column[1] = np.nan
    stage = opened(tmp_path)
    feed(stage, 0, 3, 3, (frames(3), report))
    stage.finish()
    rows = read_table(open_store(str(tmp_path)), "quality").to_pylist()
    assert [(r["exposure"], r["noise"] is None, r["flags"]) for r in rows] == [
        (0.75, False, []),
        (None, True, ["unprocessed"]),
        (0.75, False, []),
    ]


def test_trouble_is_told_when_it_lasts_and_when_it_is_over(tmp_path: Path) -> None:
    stage = opened(tmp_path)
    feed(stage, 0, N, 8)
    stage.finish()
    degraded, recovered = read_table(open_store(str(tmp_path)), "events").to_pylist()
    assert (degraded["event_id"], degraded["seq"], degraded["t_s"]) == ("a-0-18-quality.degraded", 18, 1.8)
    assert json.loads(degraded["data"]) == {
        "causes": ["black"], "since_seq": {"black": 8}, "since_s": {"black": 0.8}, "active": ["black"],
    }  # fmt: skip
    assert (recovered["type"], recovered["seq"]) == ("quality.recovered", 40)
    assert json.loads(recovered["data"])["active"] == []


@pytest.mark.parametrize("duration", [1, 0])
def test_an_epoch_begins_where_the_one_before_it_ended(tmp_path: Path, duration: int) -> None:
    """Epoch 0: 13 frames of 1/10 s end at 1.3 s (with no durations given, the last one stays as long as the one
    before). Epoch 2 (1 was empty) begins there, at 5000 ticks of 1/1000 s, 40 ticks a frame: 1.3, 1.34, …, and its
    2 frames end at 1.38, where epoch 3 begins.
    """
    stage = opened(tmp_path)
    feed(stage, 0, 13, 5, (frames(13, first_pts=900, duration=duration),))
    stage.finish()
    opened(tmp_path, epoch=1).finish()
    for epoch, tick, ticks in ((2, Fraction(1, 1000), 40), (3, Fraction(1, 25), 1)):
        stage = opened(tmp_path, epoch=epoch)
        feed(stage, 0, 2, 1, (frames(2, epoch=epoch, first_pts=5000, tick=tick, duration=ticks),))
        stage.finish()
    rows = read_table(open_store(str(tmp_path)), "frames")
    assert rows["t_s"].to_pylist() == [i / 10 for i in range(13)] + [1.3, 1.34, 1.38, 1.42]


def test_no_picture_is_kept_alive(tmp_path: Path) -> None:
    stage = opened(tmp_path)
    batch = frames(5)
    alive = weakref.ref(batch.data)
    stage.process(Work(item=batch, span=batch.span))
    del batch
    gc.collect()
    assert alive() is None


def test_a_full_disk_fails_the_stage_with_our_error(tmp_path: Path) -> None:
    (tmp_path / "tables").write_bytes(b"")  # a file where the folder should be
    stage = opened(tmp_path)
    with pytest.raises(StorageError, match="another directory"):
        feed(stage, 0, N, 8)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("part_frames", 0),
        ("stable_from", 1.5),
        ("picture_hold_s", 0.0),
        ("exposure_recovered", 0.1),
        ("sharpness_degraded", -1.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"record\.{field}.*use "):
        RecordConfig(**{field: value})  # type: ignore[arg-type]
