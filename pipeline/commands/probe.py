"""`limpid probe SOURCE`: what a source is, what is odd about it, and whether it can be used (exit 0) or not (1)."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, LimpidError, UnsupportedMedia
from pipeline.media.entries import audio_entry
from pipeline.media.source import Source, SourceInfo, SourceOptions, open_source
from pipeline.stage import StageEnv, Work
from pipeline.stages.decode import Decode, DecodeConfig
from pipeline.wire.frames import FrameBatch
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Codec, Packet, Track

LOOK_S = 5.0  # of media that are decoded (chosen: two groups of pictures of most streams)
_LOOK_WALL_S = 15.0
_LOOK_PACKETS = 6400
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # H.273 table 3
_SENTENCES = {
    "wrap": "time stamps wrapped around",
    "missing_pts": "frames without time stamp (spaced by the frame rate)",
    "broken_pts": "broken time stamps",
    "step_back": "steps back in time",
    "jump": "jumps in time (each begins a new epoch)",
    "format_change": "changes of the picture's size or coding (each begins a new epoch)",
    "audio_off_clock": "audio packets far from the video's time (dropped)",
    "epoch_without_key": "jumps without a key frame near",
    "read_error": "damaged places in the container",
    "undecodable_key": "key frames that cannot be decoded",
    "decode_error": "packets that cannot be decoded",
    "pts_not_increasing": "frames whose time does not increase",
    "size_changed": "frames of another size (scaled)",
}


def main(argv: Sequence[str]) -> int:
    """Print what SOURCE is. Exit code 0: it can be used; 1: it cannot; wrong use raises ConfigError (2)."""
    parser = argparse.ArgumentParser(prog="limpid probe", description="say what a source is and whether it can be used")
    parser.add_argument(
        "source", metavar="SOURCE", help="a file or an address: http(s), rtmp, rtsp, udp, tcp, synthetic"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--timeout", type=float, default=15.0, metavar="S", help="for opening and each read (15)")
    parser.add_argument("--ca-file", default="", metavar="F", help="certificates (PEM) to trust beside the system's")
    args = parser.parse_args(argv)
    if not args.timeout > 0:
        raise ConfigError(f"{args.timeout} is no timeout", where="--timeout", hint="give seconds above 0")
    options = SourceOptions(
        open_timeout_s=args.timeout, read_timeout_s=args.timeout, reconnect_attempts=1, ca_file=args.ca_file
    )
    try:
        report = probe(args.source, options)
    except ConfigError:
        raise
    except LimpidError as error:
        if not args.json:
            raise
        print(json.dumps({"source": args.source, "verdict": "unusable", "error": _error(error)}, indent=2))
        return 1
    print(json.dumps(report, indent=2) if args.json else as_text(report))
    return 0


def probe(uri: str, options: SourceOptions | None = None) -> dict[str, Any]:
    """Return what `uri` is, as the JSON object that the command prints; reads a few seconds of media.

    Raises:
        SourceError: it cannot be used.
    """
    with contextlib.closing(open_source(uri, options=options)) as source:
        info = source.info  # waits for a live source
        seen = _look(source)
        if not seen.num_frames:
            raise UnsupportedMedia("opens, but its first seconds give no picture", where=info.uri)
        return _report(info, seen, source.problems)


@dataclass(slots=True)
class _Seen:
    """What the first seconds hold."""

    first: FrameBatch | None = None
    num_frames: int = 0
    pts: list[int] = field(default_factory=list)  # of epoch 0's frames
    keys: list[int] = field(default_factory=list)  # epoch 0's key frames, as frame numbers
    epochs: int = 0
    reordered: bool = False
    audio_packet: bytes | None = None
    problems: Counter[str] = field(default_factory=Counter)


def _look(source: Source) -> _Seen:
    seen = _Seen()
    stream = StreamId("probe")
    stage: Decode | None = None
    base = source.info.video.time_base
    stop_s = time.monotonic() + _LOOK_WALL_S
    with contextlib.closing(source.batches(stream=stream)) as batches:
        num_packets = 0
        for batch in batches:
            if time.monotonic() > stop_s:
                break
            if batch is None:
                continue
            num_packets += len(batch)
            if stage is None or batch.span.epoch != stage.env.epoch:
                if stage is not None:
                    _note(seen, stage.finish())
                stage = Decode(DecodeConfig())
                stage.open(StageEnv(stream=stream, epoch=batch.span.epoch))
                stage.problems = seen.problems
                seen.epochs += 1
            _note_packets(seen, batch.packets)
            _note(seen, stage.process(Work(item=batch, span=batch.span)))
            looked = len(seen.pts) > 1 and (max(seen.pts) - min(seen.pts)) * base >= LOOK_S
            if looked or num_packets >= _LOOK_PACKETS:
                return seen
    if stage is not None:
        _note(seen, stage.finish())
    return seen


def _note_packets(seen: _Seen, packets: Sequence[Packet]) -> None:
    last = None
    for packet in packets:
        if packet.track is Track.AUDIO:
            seen.audio_packet = seen.audio_packet or packet.data
        elif packet.pts is not None:
            seen.reordered |= last is not None and packet.pts < last
            last = packet.pts


def _note(seen: _Seen, batches: Sequence[FrameBatch]) -> None:
    for batch in batches:
        seen.first = seen.first or batch
        if batch.span.epoch == 0:
            seen.keys += [batch.span.start + int(i) for i in np.flatnonzero(batch.keyframe)]
            seen.pts += [int(p) for p in batch.pts]
        seen.num_frames += len(batch)


def _report(info: SourceInfo, seen: _Seen, source_problems: Counter[str]) -> dict[str, Any]:
    problems = {name: count for name, count in sorted((source_problems | seen.problems).items()) if count}
    assert seen.first is not None
    color = seen.first.color
    rate = info.frame_rate
    looked_s = float((seen.pts[-1] - seen.pts[0]) * info.video.time_base) if len(seen.pts) > 1 else 0.0
    return {
        "source": info.uri,
        "container": info.container,
        "duration_s": info.duration_s,
        "live": info.live,
        "tracks": [
            {
                "index": t.index,
                "kind": t.kind,
                "codec": t.codec,
                "chosen": t.chosen,
                "size": None if t.size is None else str(t.size),
                "frame_rate": None if t.frame_rate is None else round(float(t.frame_rate), 3),
                "sample_rate_hz": t.sample_rate_hz or None,
                "channels": t.channels or None,
                "language": t.language or None,
            }
            for t in info.tracks
        ],
        "video": {
            "codec": info.video.name,
            "width": info.size.width_px,
            "height": info.size.height_px,
            "rotation_deg": info.video.rotation_deg,
            "frame_rate": None if rate is None else round(float(rate), 3),
            "pix_fmt": info.video.pix_fmt,
            "interlaced": info.video.interlaced,
            "color": {
                "matrix": color.matrix,
                "primaries": color.primaries,
                "transfer": color.transfer,
                "full_range": color.full_range,
            },
            "gop_frames": _longest_group(seen),
            "b_frames": seen.reordered or info.video.reorder_frames > 0,
            "clock": _clock(seen, info.video),
            "time_base": str(info.video.time_base),
        },
        "audio": None
        if info.audio is None
        else {
            "codec": info.audio.name,
            "sample_rate_hz": info.audio.sample_rate_hz,
            "channels": info.audio.channels,
        },
        "looked_at": {"frames": seen.num_frames, "seconds": round(looked_s, 3), "epochs": seen.epochs},
        "problems": problems,
        "notes": _notes(info, seen),
        "verdict": "usable, with problems" if problems else "usable",
    }


def _longest_group(seen: _Seen) -> int | None:
    """Frames between key frames, the most seen; None where fewer than two key frames were seen."""
    return max((b - a for a, b in zip(seen.keys, seen.keys[1:], strict=False)), default=None)


def _clock(seen: _Seen, video: Codec) -> str:
    """ "constant", "variable" or "none" (no time stamps); rounding to the source's ticks counts as constant."""
    if seen.problems["missing_pts"] >= len(seen.pts):
        return "none"
    steps = np.diff(np.array(seen.pts, np.int64))
    if len(steps) < 2:
        return "constant"
    # A clock of ticks that no multiple of a frame fits (1/1000 for 30 Hz) alternates between neighbours.
    return "constant" if int(steps.max() - steps.min()) <= max(1, 0.001 / video.time_base) else "variable"


def _notes(info: SourceInfo, seen: _Seen) -> list[str]:
    video, notes = info.video, []
    chosen = [t for t in info.tracks if t.chosen and t.kind == "video"]
    others = sum(t.kind == "video" for t in info.tracks) - 1
    if others > 0:
        notes.append(f"several video tracks: track {chosen[0].index} is taken (largest area × rate)")
    if video.rotation_deg:
        notes.append(f"is turned by {video.rotation_deg}° counter-clockwise")
    if video.interlaced:
        notes.append("is interlaced: two fields become one progressive frame")
    if video.pix_fmt not in ("yuv420p", "yuvj420p"):
        notes.append(f"{video.pix_fmt} is converted to 8 bit 4:2:0")
    assert seen.first is not None
    if seen.first.color.transfer in _HDR_TRANSFERS:
        notes.append(f"is HDR ({_HDR_TRANSFERS[seen.first.color.transfer]}): kept in its curve, with 8 bit")
    if info.audio is not None and seen.audio_packet is not None:
        try:
            audio_entry(info.audio, seen.audio_packet)
        except LimpidError as error:
            notes.append(f"audio: {error.what}")
    return notes


def _error(error: LimpidError) -> dict[str, str]:
    return {"kind": type(error).__name__, "what": error.what, "where": error.where, "hint": error.hint}


def as_text(report: dict[str, Any]) -> str:
    """Return the report for a person, a fact a line."""
    video, audio, looked = report["video"], report["audio"], report["looked_at"]
    unknown = "live" if report["live"] else "unknown"
    length = unknown if report["duration_s"] is None else f"{report['duration_s']:.2f} s"
    rate = "unknown rate" if video["frame_rate"] is None else f"{video['frame_rate']:g} frames/s"
    group = f"a key frame at least every {video['gop_frames']} frames" if video["gop_frames"] else "one key frame seen"
    lines = [
        f"source     {report['source']}",
        f"container  {report['container']}, {length}",
    ]
    for t in report["tracks"]:
        facts = [
            t["codec"] or "unknown codec",
            t["size"],
            f"{t['frame_rate']:g} frames/s" if t["frame_rate"] else None,
            f"{t['sample_rate_hz']} Hz" if t["sample_rate_hz"] else None,
            f"{t['channels']} ch" if t["channels"] else None,
            t["language"],
            "← taken" if t["chosen"] else None,
        ]
        lines.append(f"track {t['index']:<4} {t['kind']}: {', '.join(str(f) for f in facts if f)}")
    lines += [
        f"picture    {video['width']}×{video['height']}, {rate}, {video['pix_fmt']}",
        f"coding     {video['codec']}, {group}, {'B-frames' if video['b_frames'] else 'no B-frames'}",
        f"clock      {video['clock']}, ticks of {video['time_base']} s",
        "audio      "
        + (f"{audio['codec']}, {audio['sample_rate_hz']} Hz, {audio['channels']} ch" if audio else "none"),
        f"looked at  {looked['frames']} frames, {looked['seconds']:g} s, {looked['epochs']} epoch(s)",
    ]
    lines += [f"note       {note}" for note in report["notes"]]
    lines += [f"problem    {count} × {_SENTENCES.get(name, name)}" for name, count in report["problems"].items()]
    return "\n".join([*lines, f"verdict    {report['verdict']}"])
