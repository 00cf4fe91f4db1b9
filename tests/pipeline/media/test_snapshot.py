from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import CorruptMedia
from pipeline.media import hls
from pipeline.media.snapshot import snapshot
from pipeline.stages.encode import Encode, EncodeConfig
from pipeline.store.objects import LocalStore
from tests.pipeline.media import made


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """25 frames at 10 Hz in segments of 1 s: frames 0-9, 10-19, 20-24."""
    stage = made.opened(Encode(EncodeConfig(segment_s=1.0)), tmp_path)
    made.feed(stage, made.frames(range(0, 2500, 100), duration=100))
    stage.finish()
    stage.close()
    return LocalStore(tmp_path)


def test_nothing_gives_none(tmp_path: Path) -> None:
    assert snapshot(LocalStore(tmp_path)) is None


def test_the_newest_is_the_last_segments_first_frame(store: LocalStore) -> None:
    newest = snapshot(store)
    assert newest is not None
    assert newest == snapshot(store, t_s=2.0) == snapshot(store, t_s=2.05)
    assert newest != snapshot(store, t_s=2.1)
    picture = cv2.imdecode(np.frombuffer(newest, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (48, 64, 3)


def test_a_time_behind_the_end_gives_the_last_frame(store: LocalStore) -> None:
    assert snapshot(store, t_s=2.45) == snapshot(store, t_s=1e9)


def test_a_segment_that_was_deleted_gives_none(store: LocalStore) -> None:
    playlist = hls.read(store, hls.MAIN)
    assert playlist is not None
    store.delete(f"{hls.MAIN}/{playlist.segments[-1].name}")
    assert snapshot(store) is None


def test_a_damaged_segment_is_told(store: LocalStore) -> None:
    playlist = hls.read(store, hls.MAIN)
    assert playlist is not None
    name = f"{hls.MAIN}/{playlist.segments[-1].name}"
    store.put(name, b"\0" * 100)
    with pytest.raises(CorruptMedia):
        snapshot(store)
    store.put(hls.init_name(hls.MAIN, 0), b"nothing")
    with pytest.raises(CorruptMedia):
        snapshot(store)
