"""`limpid publish`: the streamer's side of a stream whose enhancement learns the scene."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.commands.stopping import stop_on_signals
from pipeline.errors import ConfigError
from pipeline.media.hostile import scheme_of
from pipeline.models import FAMILY, model_path
from pipeline.publisher.capture import CaptureConfig
from pipeline.publisher.display import Display, JsonLines
from pipeline.publisher.frames import open_frames
from pipeline.publisher.session import Session, SessionConfig
from pipeline.publisher.upload import check_service
from pipeline.store.keys import load_key
from pipeline.wire.ids import stream_id

EVERY_S = 1.0
_CLOSE_WITHIN_S = 20.0
_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}


def main(argv: Sequence[str]) -> int:
    """Publish what `argv` says until the source ends or a signal comes; return the exit code."""
    args = _parser().parse_args(argv)
    if scheme_of(args.rtmp_url) not in ("rtmp", "rtmps") and not args.rtmp_url.endswith(".flv"):
        raise ConfigError("no RTMP address", where="RTMP_URL", hint="give rtmp(s)://host/app/name?key=…")
    check_service(args.service)
    if not args.key.is_file():
        raise ConfigError("there is no such file", where=f"--key {args.key}", hint="make one: limpid key new")
    config = SessionConfig(
        rtmp_url=args.rtmp_url,
        service=args.service,
        stream=stream_id(args.stream),
        key=load_key(args.key),
        token=args.token,
        model=model_path(args.model, args.scale),
        uplink_bps=args.uplink,
        capture=CaptureConfig(height_px=args.height, scale=args.scale, bitrate_bps=round(args.bitrate)),
    )
    if not config.model.is_file():
        raise ConfigError(f"there is no model '{args.model}'", where="--model", hint="give its file")
    frames = open_frames(args.source)
    with stop_on_signals(_CLOSE_WITHIN_S) as stopping, JsonLines() if args.json else Display() as show:
        session = Session(frames, config)
        try:
            while not session.ended.is_set() and not stopping.event.wait(EVERY_S):
                show(session.status())
        finally:
            session.close(drain=not stopping.signum)
        show(session.status())
    return stopping.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="limpid publish",
        description="Encode a source down, push it by RTMP, and keep training the service's network on the very scene.",
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a file, device or address; rtmp+listen://127.0.0.1:1935/live/obs waits for OBS",
    )
    parser.add_argument("rtmp_url", metavar="RTMP_URL", help="where to push: rtmp(s)://host/app/name?key=…")
    parser.add_argument("--service", required=True, metavar="URL", help="the Limpid service that models go to")
    parser.add_argument("--stream", required=True, metavar="ID", help="the stream's id there")
    parser.add_argument("--key", required=True, type=Path, metavar="F", help="Ed25519 private key (PEM): signs models")
    parser.add_argument(
        "--token",
        default=os.environ.get("LIMPID_TOKEN", ""),
        metavar="T",
        help="bearer token of scope models (LIMPID_TOKEN)",
    )
    parser.add_argument(
        "--height", type=int, metavar="N", help="lines of the pushed stream (360, or half the source's)"
    )
    parser.add_argument("--scale", type=int, default=2, choices=(2, 3, 4), help="of the network (2)")
    parser.add_argument("--bitrate", type=_rate, default=5e5, metavar="R", help="of the pushed stream (500k)")
    parser.add_argument("--uplink", type=_rate, default=1e6, metavar="R", help="of the whole line, bits a second (1M)")
    parser.add_argument("--model", default=FAMILY, metavar="M", help="the service's generic model: a name or a file")
    parser.add_argument("--json", action="store_true", help="print one JSON line a second instead of the display")
    return parser


def _rate(text: str) -> float:
    """Return bits a second of "500k", "1.5M" or "800000"."""
    number, factor = (text[:-1], _UNITS[text[-1].lower()]) if text[-1:].lower() in _UNITS else (text, 1.0)
    try:
        value = float(number) * factor
    except ValueError:
        value = 0.0
    if not 1e4 <= value < 1e11:
        raise argparse.ArgumentTypeError(f"'{text}' is no rate: give bits a second, 500k or 1M")
    return value
