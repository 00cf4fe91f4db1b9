"""The benchmarks of the dataflow: their short forms run, and what they would call a fault is one."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.live_peers import program
from tests.service.test_live_sources import Nginx

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 150


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts import each other as they do when they run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def rows_of(script: str, out: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run a benchmark's short form and return the rows of its JSON."""
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--quick", "--json", out, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["hardware"]["cores"] >= 1
    rows: list[dict[str, Any]] = document["rows"]
    assert {r["case"] for r in rows} >= {"machine"} or script == "clips"
    return rows


def test_flow_times_the_plain_loop(tmp_path: Path) -> None:
    """4 stages with 5 ms of CPU time a frame: no loop can pass more than 50 frames a second."""
    rows = rows_of("flow", tmp_path / "f.json", "--cases", "5ms", "--only", "plain-8", "--frames", "24")
    (fps,) = [r["value"] for r in rows if r["metric"] == "throughput"]
    assert 0 < fps <= 50


def test_endtoend_tells_what_each_stage_costs(tmp_path: Path) -> None:
    rows = rows_of("endtoend", tmp_path / "e.json", "--only", "plain,local")
    stages = {r["case"].removeprefix("stage ") for r in rows if r["case"].startswith("stage ")}
    assert stages == {"source", "decode", "enhance", "guard", "encode", "audio", "quality", "record"}
    fps = {r["case"]: r["value"] for r in rows if r["metric"] == "throughput"}
    assert fps["plain"] > 0 and fps["local"] > 0


def test_a_real_clip_comes_out_whole(tmp_path: Path, shared_data: Path) -> None:
    rows = rows_of("clips", tmp_path / "c.json", "--only", "tc_nasa")
    assert {(r["case"], r["value"]) for r in rows if r["metric"] == "faults"} == {("tc_nasa", 0)}
    (frames,) = [r for r in rows if r["metric"] == "frames"]
    assert frames["value"] == frames["reference_value"] >= 30


def test_work_done_before_the_steady_part_does_not_count(bench: None, tmp_path: Path) -> None:
    """4 frames, 6 stages; the first frame has arrived at 10, when all stages but the last had done all 4 of theirs.

    Of 24 frames' work, 5·4 + 1 = 21 were done before: what is left is 3/6 = half a frame's, in 5 s.
    """
    from flow_peers import load

    log = load.Log(str(tmp_path), 0)
    log.done(load.make_frames([0, 1]))
    assert [n for _, n in load._RECORD.iter_unpack((tmp_path / "stage0").read_bytes())] == [0, 1]
    for stage in range(6):
        at = [10.0, 12.0, 14.0, 15.0] if stage == 5 else [1.0, 2.0, 3.0, 4.0]
        records = [load._RECORD.pack(t, n) for n, t in enumerate(at)]
        (tmp_path / f"stage{stage}").write_bytes(b"".join(records))
    steady = load.steady(tmp_path, 4, 0.25)
    assert (steady.start_s, steady.stop_s, steady.ordered) == (10.0, 15.0, True)
    assert steady.frames == pytest.approx(0.5)
    (tmp_path / "stage3").write_bytes(load._RECORD.pack(1.0, 0) * 4)
    with pytest.raises(ValueError, match="stage 3: 4 frames, 1 different ones of 4"):
        load.steady(tmp_path, 4, 0.25)


def test_a_contestant_that_hangs_is_killed_with_its_children(bench: None, tmp_path: Path) -> None:
    from measuring.contest import python, run

    pids = tmp_path / "pids"
    code = (
        "import os, signal, subprocess, sys;"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], start_new_session=True);"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}');"
        "signal.pause()"
    )
    ran = run(python("-c", code), deadline_s=4, every_s=0.2)
    assert ran.said == {} and "was killed" in ran.why
    assert ran.peak_pss_bytes > 1 << 20
    for pid in map(int, pids.read_text(encoding="utf-8").split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_contestant_that_fails_says_why(bench: None) -> None:
    from measuring.contest import python, run

    ran = run(python("-c", "raise SystemExit('no such stage')"), deadline_s=30)
    assert ran.said == {} and ran.why.startswith("exit code 1: no such stage")


def test_cpu_time_is_interpolated_between_samples(bench: None) -> None:
    from measuring.contest import Ran, Sample

    samples = tuple(Sample(at_s=t, pss_bytes=0, shm_bytes=0, cpu_s=c, processes=1) for t, c in ((1, 0), (3, 4), (5, 4)))
    ran = Ran(said={}, samples=samples)
    assert ran.cpu_between(2.0, 3.0) == pytest.approx(2.0)
    assert ran.cpu_between(3.0, 9.0) == pytest.approx(0.0)


def seen(times: list[int], *, audio: list[int] | None = None, shade: int = 100) -> Any:
    from clips import Seen

    thumbs = [np.full((18, 32), shade + 10 * t, np.uint8) for t in times]
    sound = [(Fraction(a, 1000), bytes([a % 256])) for a in audio or []]
    return Seen(times=[Fraction(t, 25) for t in times], thumbs=thumbs, end=Fraction(times[-1] + 1, 25), audio=sound)


def test_clips_finds_what_is_wrong(bench: None) -> None:
    """40 ms a frame; the audio's packets are shifted in time but not in content."""
    from clips import compare

    good = seen([0, 1, 2], audio=[0, 20])
    assert compare(good, seen([0, 1, 2], audio=[0, 20]), whole=True)["faults"] == []
    assert compare(good, seen([0, 1], audio=[0, 20]), whole=True)["faults"] == [
        "2 frames, not 3",
        "lasts -0.0400 s longer",
    ]
    late = seen([0, 1, 2], audio=[0, 20])
    late.audio = [(at + Fraction(41, 1000), data) for at, data in late.audio]
    assert compare(good, late, whole=True)["faults"] == ["audio is 41 ms out of step"]
    assert compare(good, seen([0, 1, 2], audio=[0, 21]), whole=True)["faults"] == ["audio packets were changed"]
    swapped = seen([0, 1, 2], audio=[0, 20])
    swapped.thumbs.reverse()
    assert compare(good, swapped, whole=True)["faults"] == ["frame 0 shows another picture"]
    moved = seen([0, 1, 2], audio=[0, 20])
    moved.times[1] += Fraction(1, 90_000)
    assert compare(good, moved, whole=True)["faults"] == ["1 pts differ (frame 1: 0.040011 s, not 0.040000)"]


def test_online_compares_the_policies(tmp_path: Path) -> None:
    """Two streets of 4 s at 4 steps a second: continuous does all 16 of them each, adaptive no more."""
    rows = rows_of("online", tmp_path / "o.json", "--steps", "4")
    steps = {r["case"]: r["value"] for r in rows if r["metric"] == "steps"}
    assert steps["street 1, continuous"] == steps["street 2, continuous"] == 16
    assert steps["street 1, adaptive"] <= 16 and steps["joined, 2 clips, continuous"] > 0
    assert {r["metric"] for r in rows} >= {"psnr_y", "gain", "worst_second", "worst_second_behind_a_cut", "cpu_time"}


def test_memory_takes_the_slope_of_the_line(bench: None) -> None:
    from memory import _slope

    assert _slope([0.0, 1.0, 2.0, 3.0], [100.0, 103.0, 105.0, 108.0]) == pytest.approx(2.6)


def test_a_short_soak_loses_no_frame(tmp_path: Path) -> None:
    """Five live streams, while the supervisor, a reader and the service go: what it would call a fault raises."""
    rows = rows_of("live", tmp_path / "l.json", "--cases", "soak")
    assert {r["metric"] for r in rows} >= {"memory_slope", "fds_slope", "lag_p95"}


def test_swaps_lose_no_frame(tmp_path: Path) -> None:
    """Five swaps in three seconds: one that is not taken, or that loses or mislabels a frame, raises."""
    rows = rows_of("swaps", tmp_path / "s.json")
    figures = {r["metric"]: r["value"] for r in rows}
    assert figures["swaps_taken"] == 5 and figures["latency_p95"] > 0


def test_real_peers_come_back_with_one_gap_each(tmp_path: Path) -> None:
    """Where a server was away or silent, all of it may have come later (then nothing is missing, and no gap told)."""
    program("ffmpeg", "ffmpeg")
    Nginx(tmp_path)
    python = [program("/usr/bin/python3", "python3"), "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"]
    if subprocess.run(python, capture_output=True, check=False).returncode:
        pytest.skip("no RTSP server (Debian: gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly …)")
    least_gaps = {"server killed": 0, "size change": 1}
    rows = rows_of("protocols", tmp_path / "p.json", "--seconds", "3", "--cases", ",".join(least_gaps))
    figures = {(r["case"], r["metric"]): r["value"] for r in rows}
    for peer in ("rtmp", "rtsp", "hls", "udp"):
        for what, least in least_gaps.items():
            assert least <= figures[f"{peer}, {what}", "gaps"] <= 1, (peer, what)
            assert figures[f"{peer}, {what}", "well_after"] < 90, (peer, what)
        came, read, out = (figures[peer, f"frames_{what}"] for what in ("came", "read", "out"))
        assert came == read == out > 0 == figures[peer, "frames_strange"]
