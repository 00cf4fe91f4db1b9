"""Clips made for a benchmark, before anything is timed."""

from __future__ import annotations

from pathlib import Path

import av
from av.codec.context import CodecContext

from pipeline.media.source import open_source
from pipeline.wire.ids import StreamId
from pipeline.wire.packets import Track


def remux(uri: str, path: Path, *, times: int = 1) -> Path:
    """Write the video packets of a source, `times` times over, to an MP4; return its path.

    Args:
        uri: as open_source takes it; of one epoch.
        path: of the MP4.
        times: how often the clip is to be repeated; its first picture must be a key frame, as a clip's is.
    """
    source = open_source(uri)
    video = source.info.video
    assert video.size is not None
    with av.open(str(path), "w") as container:
        context = CodecContext.create(video.name, "r")
        context.extradata = video.extradata
        context.width, context.height, context.pix_fmt = video.size.width_px, video.size.height_px, video.pix_fmt
        track = container.add_stream_from_template(context)
        track.time_base = video.time_base
        shift = 0
        for _ in range(times):
            end = 0
            for batch in source.batches(stream=StreamId("clip")):
                for packet in batch.packets:
                    if packet.track is not Track.VIDEO:
                        continue
                    assert packet.pts is not None
                    out = av.Packet(packet.data)
                    out.stream = track
                    out.time_base = video.time_base
                    out.pts = packet.pts + shift
                    out.dts = (packet.pts if packet.dts is None else packet.dts) + shift
                    out.duration = packet.duration
                    out.is_keyframe = packet.key
                    end = max(end, packet.pts + packet.duration)
                    container.mux(out)
            shift += end
    source.close()
    return path


def tiny(path: Path, frames: int) -> Path:
    """Write an MP4 of so many small black frames, one packet each, in order; return its path."""
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0", "threads": "1"})
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = index
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path
