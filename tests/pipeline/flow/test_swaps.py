"""pipeline.flow.swaps and what the ledger stamps: promoted, rejected, rolled back; over rungs and restarts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.errors import ModelRejected, StorageError
from pipeline.flow.job import Job
from pipeline.flow.ledger import Ledger
from pipeline.flow.signals import Position, Save
from pipeline.flow.swaps import MARGIN_DB, Swaps
from pipeline.store import manifest as manifests
from pipeline.store.objects import open_store
from pipeline.store.parquet import read_table
from pipeline.wire.acks import Stamp, stamp_at
from pipeline.wire.ids import StreamId
from pipeline.wire.trials import Gain, Trial

GENERIC = "f-edsr-x2@2"
STAMP = Stamp(model=GENERIC, runtime="openvino-int8", threads=2)


def opened(folder: Path, **enhance: object) -> Ledger:
    job = Job(
        stream=StreamId("s"),
        source="synthetic://street",
        store=str(folder),
        settings=Settings.from_dict({"enhance": enhance}),
    )
    return Ledger(job, choose=lambda graph: STAMP if enhance.get("model") != "bicubic" else Stamp(runtime="bicubic"))


def trial(version: int, gain_db: float = 1.0, *, latest_ns: int = 0) -> Trial:
    return Trial(
        model=f"f-edsr-x2@{version}",
        version=version,
        parent=GENERIC,
        publisher="cam",
        psnr_before_db=30.0,
        psnr_after_db=30.0 + gain_db,
        gain_db=gain_db,
        latest_ns=latest_ns,
    )


def at(seq: int, epoch: int = 0) -> tuple[int, int]:
    return epoch, seq


def models(ledger: Ledger, *seqs: int, epoch: int = 0) -> list[int]:
    """The version that each frame is made with."""
    schedule = ledger.schedule(epoch)
    return [int(stamp_at(schedule, seq).model.partition("@")[2]) for seq in seqs]


def states(swaps: Swaps) -> dict[int, str]:
    return {entry.version: entry.state for entry in swaps.entries}


def told(folder: Path) -> list[str]:
    kinds: list[str] = read_table(open_store(str(folder)), "events").column("type").to_pylist()
    return [kind for kind in kinds if kind.startswith("model.")]


def test_a_better_model_holds_from_the_frontier_on(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    swaps = Swaps(ledger)
    assert swaps.contest({"cam": "key"}).least_version == 3
    swaps.judge(trial(3), now_s=1.0)
    swap = swaps.promote(trial(3), lambda: at(96), now_s=1.0)
    assert (swap.version, swap.epoch, swap.seq, swap.psnr_before_db, swap.psnr_after_db) == (3, 0, 96, 30.0, 31.0)
    assert models(ledger, 0, 95, 96, 500) == [2, 2, 3, 3] and models(ledger, 0, epoch=4) == [3]
    held = stamp_at(ledger.schedule(0), 96)
    assert held == replace(STAMP, model="f-edsr-x2@3"), "runtime and threads are the stream's"
    assert states(swaps) == {2: "superseded", 3: "current"}
    progress = ledger.progress()
    assert (progress.model, progress.gain_db) == ("f-edsr-x2@3", 1.0)
    found = manifests.load(ledger.store)
    assert found is not None and found.models == {"enhance": "f-edsr-x2@3"}
    assert swaps.contest({}).current == "f-edsr-x2@3" and swaps.contest({}).least_version == 4
    assert told(tmp_path) == ["model.promoted"]


@pytest.mark.parametrize("gain_db", [-1.0, 0.0, MARGIN_DB])
def test_one_that_is_no_better_is_rejected_with_both_figures(tmp_path: Path, gain_db: float) -> None:
    ledger = opened(tmp_path)
    swaps = Swaps(ledger)
    with pytest.raises(ModelRejected, match=r"against 30\.000 dB of f-edsr-x2@2") as refused:
        swaps.judge(trial(3, gain_db), now_s=1.0)
    assert refused.value.figures == {"psnr_before": 30.0, "psnr_after": 30.0 + gain_db, "version": 3}
    assert states(swaps) == {2: "current", 3: "rejected"} and swaps.generic
    assert swaps.contest({}).least_version == 3, "what was never taken may come again, trained further"
    assert told(tmp_path) == ["model.rejected"]


def test_a_rollback_leads_to_the_model_before_and_in_the_end_to_the_generic_one(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    swaps = Swaps(ledger)
    for version in (3, 4):
        swaps.promote(trial(version), lambda n=version: at(8 * n), now_s=1.0)  # type: ignore[misc]
    first = swaps.roll_back(swaps.way_back(), lambda: at(40), reason="by request")
    assert (first.version, first.seq, first.psnr_after_db) == (3, 40, None)
    swaps.promote(trial(5), lambda: at(48), now_s=1.0)
    assert [swaps.roll_back(swaps.way_back(), lambda: at(56), reason="").version for _ in range(2)] == [3, 2]
    assert swaps.generic and states(swaps) == {2: "current", 3: "rolled-back", 4: "rolled-back", 5: "rolled-back"}
    with pytest.raises(ModelRejected, match="none before it"):
        swaps.way_back()
    assert models(ledger, 24, 32, 40, 48, 56) == [3, 4, 3, 5, 2]
    assert swaps.contest({}).least_version == 6, "versions only rise"
    assert ledger.progress().gain_db is None


def test_a_measured_loss_on_two_key_frames_takes_the_model_back(tmp_path: Path) -> None:
    """Mean of the last four: one bad frame among good ones is no reason, nor is a single one."""
    ledger = opened(tmp_path)
    swaps = Swaps(ledger)
    swaps.promote(trial(3, latest_ns=10), lambda: at(8), now_s=1.0)
    assert swaps.judged_ns == 10
    assert swaps.note([Gain(captured_ns=20, gain_db=-0.5)]) == ""
    assert ledger.progress().gain_db == -0.5 and swaps.judged_ns == 20
    assert swaps.note([Gain(captured_ns=30, gain_db=0.6), Gain(captured_ns=40, gain_db=0.3)]) == ""
    why = swaps.note([Gain(captured_ns=50, gain_db=-0.2), Gain(captured_ns=60, gain_db=-0.8)])
    assert why.startswith("-0.025 dB"), "0.6, 0.3, −0.2, −0.8"
    swaps.roll_back(ledger.stamp.model, lambda: at(80), reason=why)
    assert models(ledger, 79, 80) == [3, 2] and states(swaps) == {2: "current", 3: "rolled-back"}
    assert told(tmp_path) == ["model.promoted", "model.rolled_back"]
    assert swaps.note([]) == ""


def test_the_ladder_and_the_weights_do_not_undo_each_other(tmp_path: Path) -> None:
    """Bicubic and back with own weights; a swap at the bicubic rung holds when it is left."""
    ledger = opened(tmp_path)
    swaps = Swaps(ledger)
    swaps.promote(trial(3), lambda: at(8), now_s=1.0)
    ledger.take_rung(4, 0, 16, "late")
    swaps.promote(trial(4), lambda: at(24), now_s=1.0)
    ledger.take_rung(5, 0, 32, "late")
    ledger.take_rung(0, 0, 40, "well")
    schedule = ledger.schedule(0)
    stamps = [stamp_at(schedule, seq) for seq in (8, 16, 24, 32, 40)]
    assert [s.model[-1] for s in stamps] == ["3", "3", "4", "4", "4"]
    assert [s.runtime for s in stamps] == ["openvino-int8", "bicubic", "bicubic", "bicubic", "openvino-int8"]
    assert [s.lighter for s in stamps] == [(), (), (), ("encode",), ()]
    assert ledger.rung == 0


def test_what_takes_the_stream_up_goes_on_with_the_weights_that_stamps_name(tmp_path: Path) -> None:
    """It starts behind the latest stamp: what it decides then holds no earlier than that, or it would not hold."""
    swaps = Swaps(opened(tmp_path))
    swaps.promote(trial(3), lambda: at(80), now_s=1.0)
    ledger = opened(tmp_path)
    again = Swaps(ledger)
    assert ledger.model == "f-edsr-x2@3" and ledger.progress().gain_db == 1.0
    assert states(again) == {2: "superseded", 3: "current"}
    assert again.promote(trial(4), lambda: at(40), now_s=2.0).seq == 80
    assert models(ledger, 79, 80, 200) == [2, 4, 4]
    assert again.entries[-1].seq == 80


def test_what_is_durable_already_keeps_the_weights_that_it_was_made_with(tmp_path: Path) -> None:
    """A sink was ahead of the others when the stream's supervisor died: up to frame 50, so batches up to 56."""
    opened(tmp_path)
    open_store(str(tmp_path)).put_new("hls/main/0-25-50.m4s", b"made with the generic weights")
    ledger = opened(tmp_path)
    assert Swaps(ledger).promote(trial(3), lambda: at(16), now_s=1.0).seq == 56
    assert models(ledger, 55, 56) == [2, 3]


def test_a_death_between_history_and_stamp_leaves_the_weights_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swaps = Swaps(opened(tmp_path))

    def full(*_: object) -> tuple[int, int]:
        raise StorageError("the disk is full")

    monkeypatch.setattr(Ledger, "swap", full)
    with pytest.raises(StorageError, match="full"):
        swaps.promote(trial(3), lambda: at(8), now_s=1.0)
    monkeypatch.undo()
    for found in (swaps, Swaps(opened(tmp_path))):
        assert found.generic and states(found) == {2: "current", 3: "rejected"}
        assert found.contest({}).least_version == 3


def test_another_file_of_a_version_is_refused_the_same_one_is_not(tmp_path: Path) -> None:
    swaps = Swaps(opened(tmp_path))
    for _ in range(2):
        swaps.store_weights(trial(3), b"one")
    with pytest.raises(ModelRejected, match="another model of version 3"):
        swaps.store_weights(trial(3), b"two")
    assert (tmp_path / "models" / "f-edsr-3.safetensors").read_bytes() == b"one"


@pytest.mark.parametrize("enhance", [{"enabled": False}, {"model": "bicubic"}])
def test_a_stream_without_a_network_takes_none(tmp_path: Path, enhance: dict[str, object]) -> None:
    with pytest.raises(ModelRejected, match="no network enhances this stream"):
        Swaps(opened(tmp_path, **enhance)).contest({})


def test_thousands_of_swaps_are_not_sent_along_with_every_batch(tmp_path: Path) -> None:
    """What lies more than some 4,096 frames behind the watermark is made by nobody any more."""
    ledger = opened(tmp_path)
    for number in range(200):
        ledger.swap(f"f-edsr-x2@{number + 3}", 0, 64 * number)
    assert len(ledger.schedule(0)) == 200
    ledger.carry_out(Save(position=Position(epoch=0, packet=0, watermark=9000, checkpoint={})))
    schedule = ledger.schedule(0)
    assert len(schedule) < 140
    assert stamp_at(schedule, 9000 - 4096).model == f"f-edsr-x2@{(9000 - 4096) // 64 + 3}"
