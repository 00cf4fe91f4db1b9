"""Kept packets: what a stream's source gave, so that a stream that cannot be read again can be replayed.

`packets/<epoch>-<first>-<stop>.parquet` holds the packets [first, stop) of an epoch, one a row, and what a decoder has
to know before them as metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import pyarrow as pa

from pipeline.errors import StorageError
from pipeline.store.objects import Store
from pipeline.store.parquet import decode, encode
from pipeline.wire.frames import Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.packets import Codec, Packet, PacketBatch, Track

PREFIX = "packets/"

SCHEMA = pa.schema(
    [
        ("track", pa.int8()),
        ("pts", pa.int64()),
        ("dts", pa.int64()),
        ("duration", pa.int64()),
        ("key", pa.bool_()),
        ("discard", pa.bool_()),
        ("data", pa.binary()),
        ("arrived_ns", pa.int64()),
    ]
)
_NAME = re.compile(r"packets/(\d+)-(\d+)-(\d+)\.parquet")


def packets_name(span: Span) -> str:
    """Return the object's name of a part; names sort in the order of the stream."""
    return f"{PREFIX}{span.epoch:06d}-{span.start:010d}-{span.stop:010d}.parquet"


def packet_parts(store: Store) -> list[tuple[int, int, int]]:
    """Return (epoch, first, stop) of the parts in the store, in order. Raises StorageError."""
    found = (_NAME.fullmatch(name) for name in store.list(PREFIX))
    return sorted((int(m[1]), int(m[2]), int(m[3])) for m in found if m)


def encode_packets(batches: Sequence[PacketBatch], versions: dict[str, int]) -> bytes:
    """Return consecutive batches of one epoch as one part's bytes."""
    rows = [(p, b.arrived_ns) for b in batches for p in b.packets]
    table = pa.table(
        {
            "track": [int(p.track) for p, _ in rows],
            "pts": [p.pts for p, _ in rows],
            "dts": [p.dts for p, _ in rows],
            "duration": [p.duration for p, _ in rows],
            "key": [p.key for p, _ in rows],
            "discard": [p.discard for p, _ in rows],
            "data": [p.data for p, _ in rows],
            "arrived_ns": [ns for _, ns in rows],
        },
        schema=SCHEMA,
    )
    first = batches[0]
    audio = _codec_to_json(first.audio) if first.audio is not None else "null"
    return encode(table, versions, {"video": _codec_to_json(first.video), "audio": audio})


def decode_packets(data: bytes, stream: StreamId, epoch: int, first: int, *, where: str) -> PacketBatch:
    """Return a part's packets as one batch that starts at packet `first`. Raises StorageError."""
    table = decode(data, where)
    meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    try:
        video, audio = _codec_from_json(meta["limpid.video"]), _codec_from_json(meta["limpid.audio"])
        rows = table.to_pylist()
        packets = tuple(
            Packet(
                track=Track(r["track"]),
                pts=r["pts"],
                dts=r["dts"],
                duration=r["duration"],
                key=r["key"],
                discard=r["discard"],
                data=r["data"],
            )
            for r in rows
        )
        if video is None:
            raise ValueError("no video codec")
        return PacketBatch(
            span=Span(stream=stream, epoch=epoch, start=first, stop=first + len(packets)),
            video=video,
            audio=audio,
            packets=packets,
            arrived_ns=rows[0]["arrived_ns"] if rows else 0,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise StorageError(
            f"kept packets are damaged ({type(error).__name__}: {error})",
            where=where,
            hint="replay from the source itself with --source",
        ) from error


def _codec_to_json(codec: Codec) -> str:
    values = asdict(codec)
    values["extradata"] = codec.extradata.hex()
    values["time_base"] = str(codec.time_base)
    values["frame_rate"] = None if codec.frame_rate is None else str(codec.frame_rate)
    return json.dumps(values, sort_keys=True)


def _codec_from_json(text: str) -> Codec | None:
    values: dict[str, Any] | None = json.loads(text)
    if values is None:
        return None
    size, rate = values["size"], values["frame_rate"]
    return Codec(
        **{
            **values,
            "extradata": bytes.fromhex(values["extradata"]),
            "time_base": Fraction(values["time_base"]),
            "size": None if size is None else Size(**size),
            "frame_rate": None if rate is None else Fraction(rate),
        }
    )
