"""Clips made for a benchmark, before anything is timed."""

from __future__ import annotations

from pathlib import Path

import av

from pipeline.media.synthetic import Scene, SceneConfig

FPS = 25


def rendered(path: Path, *, width: int, height: int, seconds: int, bitrate: int = 0) -> Path:
    """Write the rendered scene as an H.264 MP4 without sound, a key frame every two seconds; return its path."""
    scene = Scene(
        SceneConfig.parse(f"synthetic://street?width={width}&height={height}&fps={FPS}&seconds={seconds}&seed=1")
    )
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "threads": "1", "crf": "23", "g": str(2 * FPS), "bf": "2"}
        track = container.add_stream("libx264", rate=FPS, options=options)
        track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        for index in range(seconds * FPS):
            shape = (height * 3 // 2, width)
            frame = av.VideoFrame.from_ndarray(scene.frame(index).i420.reshape(shape), format="yuv420p")
            frame.pts = index
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def looped(once: Path, path: Path, times: int) -> Path:
    """Write a clip's video `times` times over, its packets as they are; return its path."""
    with av.open(str(once)) as source, av.open(str(path), "w") as container:
        taken = source.streams.video[0]
        track = container.add_stream_from_template(taken)
        assert taken.time_base is not None
        packets = [
            (bytes(p), p.pts, p.dts, p.duration or 0, p.is_keyframe) for p in source.demux(taken) if p.pts is not None
        ]
        length = max(pts + duration for _, pts, _, duration, _ in packets) - min(pts for _, pts, *_ in packets)
        for turn in range(times):
            for data, pts, dts, duration, key in packets:
                packet = av.Packet(data)
                packet.stream = track
                packet.time_base = taken.time_base
                packet.pts, packet.dts = pts + turn * length, (pts if dts is None else dts) + turn * length
                packet.duration, packet.is_keyframe = duration, key
                container.mux(packet)
    return path


def tiny(path: Path, frames: int) -> Path:
    """Write an MP4 of so many small black frames, one packet each, in order; return its path."""
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "bf": "0", "threads": "1"})
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = index
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path
