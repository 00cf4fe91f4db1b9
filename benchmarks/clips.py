"""Whether every real clip comes out whole: what PyAV decodes of the source beside what it decodes of our HLS.

Per clip: as many frames, the same pictures in the same order, pts equal to the tick, duration equal, audio packets
unchanged and in step with the picture (≤ 40 ms); with --play, played to the end by headless Chromium.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from measuring.contest import python, run
from report import SHARED, Row, parser, print_table, write_json

from pipeline.config import Settings
from pipeline.flow.job import Job, Progress
from pipeline.flow.local import run_local
from pipeline.media import hls
from pipeline.media.source import open_source
from pipeline.store.objects import Store, open_store
from pipeline.wire.ids import StreamId

MAX_STEP_S = Fraction(40, 1000)
MAX_DIFFERENCE = (
    10.0  # mean code values between thumbnails: what coding and enhancing change; another picture is far off
)
QUICK_FRAMES = 30
QUICK_CLIPS = 3
_THUMB = (32, 18)


@dataclass(kw_only=True, slots=True)
class Seen:
    """What a decoding pass found: times in seconds, exact."""

    times: list[Fraction] = field(default_factory=list)
    thumbs: list[np.ndarray[Any, Any]] = field(default_factory=list)
    end: Fraction = Fraction(0)  # of the last frame, where known
    audio: list[tuple[Fraction, bytes]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How a clip came out."""

    clip: str
    frames: int
    expected: int
    faults: tuple[str, ...]
    pts_off: int = 0
    duration_off_s: float = 0.0
    audio_packets: int = 0
    step_s: float = 0.0
    difference: float = 0.0


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=SHARED / "clips", help="folder of clips, searched throughout")
    options.add_argument("--frames", type=int, default=0, help="stop a clip after so many frames (default: its end)")
    options.add_argument("--only", default="", help="clips by name, with commas between them")
    options.add_argument("--model", default="f-edsr-x2", help="bicubic is quicker")
    options.add_argument("--plan", default="local", help="local, or on Ray: auto, chained, unchained")
    options.add_argument("--play", action="store_true", help="also play each to its end in headless Chromium")
    options.add_argument("--one", nargs=2, metavar=("CLIP", "OUT"), help="check one clip in this process")
    chosen = options.parse_args()
    if not chosen.data.is_dir():
        print(f"skipped: {chosen.data} is not on this machine", file=sys.stderr)
        return 0
    limit = chosen.frames or (QUICK_FRAMES if chosen.quick else 0)
    model = "bicubic" if chosen.quick else chosen.model
    if chosen.one:
        said = check(Path(chosen.one[0]), limit, model, chosen.plan, play=chosen.play)
        Path(chosen.one[1]).write_text(json.dumps(said), encoding="utf-8")
        return 0
    wanted = {name for name in chosen.only.split(",") if name}
    clips = [c for c in sorted(chosen.data.rglob("*.mp4")) if not wanted or c.stem in wanted]
    rows, body, good = [], [], bool(clips)
    for clip in clips[: QUICK_CLIPS if chosen.quick else None]:
        arguments = ["--data", chosen.data, "--frames", str(limit), "--model", model, "--plan", chosen.plan]
        ran = run(python(__file__, *arguments, *(["--play"] if chosen.play else []), "--one", clip), deadline_s=600)
        found: dict[str, Any] = dict(ran.said) or {"faults": [ran.why], "frames": 0, "expected": 0}
        good = good and not found["faults"]
        for metric, unit in (("frames", ""), ("duration_off", "s"), ("audio_step", "s"), ("difference", "")):
            if metric in found:
                more = {"reference": "PyAV", "reference_value": found["expected"]} if metric == "frames" else {}
                rows.append(Row(case=clip.stem, metric=metric, unit=unit, value=found[metric], **more))
        rows.append(Row(case=clip.stem, metric="faults", unit="", value=len(found["faults"])))
        body.append(
            [
                clip.stem,
                f"{found['frames']} / {found['expected']}",
                f"{1000 * found.get('duration_off', 0):+.2f}",
                f"{found.get('audio_packets', 0)}",
                f"{1000 * found.get('audio_step', 0):.2f}",
                f"{found.get('difference', 0):.1f}",
                "; ".join(found["faults"]) or "whole",
            ]
        )
    columns = [
        "clip",
        "frames / PyAV",
        "duration off, ms",
        "audio packets",
        "out of step, ms",
        "picture off",
        "verdict",
    ]
    print_table("Clips" + (f", first {limit} frames" if limit else ", whole"), columns, body)
    if chosen.json:
        write_json(chosen.json, rows)
    return 0 if good else 1


def check(clip: Path, limit: int, model: str, plan: str, *, play: bool) -> dict[str, Any]:
    """Process one clip and compare; return what was found. `limit` frames, 0 for all."""
    with tempfile.TemporaryDirectory(prefix="limpid-bench-") as store:
        state = _process(clip, store, limit, model, plan)
        expected, got = source_pass(clip), output_pass(open_store(store))
        if limit:
            expected = _first(expected, len(got.times))
        found = compare(expected, got, whole=not limit)
        if limit and len(got.times) < min(limit, len(expected.times)):
            found["faults"].append(f"only {len(got.times)} frames of {limit}")
        if state not in ("completed", "stopped"):
            found["faults"].append(f"the run {state}")
        if play:
            found["faults"] += _played(Path(store) / "hls", len(got.times))
        return found


def compare(expected: Seen, got: Seen, *, whole: bool) -> dict[str, Any]:
    """Return how the output stands to the source, as JSON-able values; `faults` says in words what is wrong."""
    faults = []
    if len(got.times) != len(expected.times):
        faults.append(f"{len(got.times)} frames, not {len(expected.times)}")
    off = sum(a != b for a, b in zip(expected.times, got.times, strict=False))
    if off:
        first = next(i for i, (a, b) in enumerate(zip(expected.times, got.times, strict=False)) if a != b)
        at = f"frame {first}: {float(got.times[first]):.6f} s, not {float(expected.times[first]):.6f}"
        faults.append(f"{off} pts differ ({at})")
    differences = [
        float(np.abs(a.astype(np.int16) - b).mean()) for a, b in zip(expected.thumbs, got.thumbs, strict=False)
    ]
    worst = max(differences, default=0.0)
    if worst > MAX_DIFFERENCE:
        faults.append(f"frame {differences.index(worst)} shows another picture")
    duration = got.end - expected.end if whole and expected.end else Fraction(0)
    if abs(duration) > Fraction(1, 1000):
        faults.append(f"lasts {float(duration):+.4f} s longer")
    step = Fraction(0)
    count = len(got.audio) if not whole else max(len(got.audio), len(expected.audio))
    pairs = list(zip(expected.audio, got.audio, strict=False))
    if whole and len(got.audio) != len(expected.audio):
        faults.append(f"{len(got.audio)} audio packets, not {len(expected.audio)}")
    if any(a != b for (_, a), (_, b) in pairs):
        faults.append("audio packets were changed")
    if pairs:
        step = max(abs((got_at - got.times[0]) - (at - expected.times[0])) for (at, _), (got_at, _) in pairs)
    if step > MAX_STEP_S:
        faults.append(f"audio is {float(step) * 1000:.0f} ms out of step")
    return {
        "faults": faults,
        "frames": len(got.times),
        "expected": len(expected.times),
        "duration_off": float(duration),
        "audio_packets": count,
        "audio_step": float(step),
        "difference": worst,
    }


def source_pass(clip: Path) -> Seen:
    """Decode a clip with PyAV as anybody would: the tracks that Limpid chooses, from start to end."""
    source = open_source(str(clip))
    tracks = {t.kind: t.index for t in source.info.tracks if t.chosen}
    source.close()
    seen = Seen()
    with av.open(str(clip)) as container:
        video = container.streams[tracks["video"]]
        assert isinstance(video, av.VideoStream)
        last = Fraction(0)
        for frame in container.decode(video):
            _see(seen, frame)
            last = Fraction(frame.duration or 0) * (frame.time_base or 0)
        if last:
            seen.end = seen.times[-1] + last
    if "audio" in tracks:
        with av.open(str(clip)) as container:
            audio = container.streams[tracks["audio"]]
            for packet in container.demux(audio):
                if packet.pts is not None and packet.size and audio.time_base is not None:
                    seen.audio.append((packet.pts * audio.time_base, bytes(packet)))
    return seen


def output_pass(store: Store) -> Seen:
    """Decode what a run wrote, epoch by epoch, with PyAV."""
    seen = Seen()
    video = hls.read(store, hls.MAIN)
    if video is None:
        return seen
    for data in _files(store, hls.MAIN, video):
        with av.open(io.BytesIO(data), "r") as container:
            for frame in container.decode(video=0):
                _see(seen, frame)
    seen.end = seen.times[0] + sum((s.duration_s for s in video.segments), Fraction(0))
    audio = hls.read(store, hls.AUDIO)
    if audio is not None:
        for data in _files(store, hls.AUDIO, audio):
            with av.open(io.BytesIO(data), "r") as container:
                track = container.streams.audio[0]
                for packet in container.demux(track):
                    if packet.pts is not None and packet.size and track.time_base is not None:
                        seen.audio.append((packet.pts * track.time_base, bytes(packet)))
    return seen


def _files(store: Store, folder: str, playlist: hls.Playlist) -> Iterator[bytes]:
    """Yield each epoch's initialisation segment and segments as one file."""
    for epoch in dict.fromkeys(s.epoch for s in playlist.segments):
        parts = [store.get(hls.init_name(folder, epoch))]
        parts += [store.get(f"{folder}/{s.name}") for s in playlist.segments if s.epoch == epoch]
        yield b"".join(parts)


def _see(seen: Seen, frame: av.VideoFrame) -> None:
    assert frame.pts is not None and frame.time_base is not None
    seen.times.append(frame.pts * frame.time_base)
    y_HW = frame.reformat(format="gray").to_ndarray()
    seen.thumbs.append(cv2.resize(y_HW, _THUMB, interpolation=cv2.INTER_AREA))


def _first(seen: Seen, frames: int) -> Seen:
    return Seen(times=seen.times[:frames], thumbs=seen.thumbs[:frames], audio=seen.audio)


def _process(clip: Path, store: str, limit: int, model: str, plan: str) -> str:
    """Run a clip, to its end or until `limit` frames are durable; return the state in which it ended."""
    values = {
        "enhance": {"model": model},
        "encode": {"segment_s": 1.0},
        "record": {"part_frames": 25},
        "flow": {"plan": "auto" if plan == "local" else plan, "queue_bytes": 64 << 20},
    }
    stop = threading.Event()

    def told(progress: Progress) -> None:
        if limit and progress.frames_done >= limit:
            stop.set()

    job = Job(stream=StreamId("bench"), source=str(clip), store=store, settings=Settings.from_dict(values))
    if plan == "local":
        outcome = run_local(job, stop=stop, progress=told)
    else:
        from actors.deploy import run_on_ray

        outcome = run_on_ray([job], stop=stop, progress=told)[0]
    if outcome.error is not None:
        raise outcome.error
    return outcome.state


def _played(folder: Path, frames: int) -> list[str]:
    from tests.service import browser

    if browser.CHROMIUM is None:
        return [browser.MISSING]
    seen = browser.play(folder)
    faults = [f"Chromium: {seen['error']}"] if seen["error"] else []
    if not seen["ended"]:
        faults.append("Chromium did not reach the end")
    elif seen["frames"] + seen["dropped"] < frames:
        faults.append(f"Chromium decoded {seen['frames']} frames and dropped {seen['dropped']}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
