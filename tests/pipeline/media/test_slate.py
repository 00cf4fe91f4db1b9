"""The slate: a card in silence while a live source is away, an epoch of its own between two of the source."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.media.slate import RATE, Slate, card
from pipeline.media.source import SourceOptions, open_source
from pipeline.vision.quality import score
from pipeline.wire.frames import Size
from pipeline.wire.packets import Codec, Packet, Track
from pipeline.wire.status import Gap
from tests.live_peers import Reader, TsServer, decoded, reading, until
from tests.media_files import encode

OPTIONS = SourceOptions(
    open_timeout_s=10, read_timeout_s=10, reconnect_initial_s=0.01, slate_after_s=0.3, slate_text="Away"
)
SOUND = Codec(name="opus", extradata=b"", time_base=Fraction(1, 1000), sample_rate_hz=48_000, channels=2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """30 frames of 96×64, a key frame each 10, with sound."""
    return encode(tmp_path_factory.mktemp("clip") / "a.ts", audio=True).read_bytes()


def pictures(codec: Codec, packets: list[Packet]) -> list[np.ndarray]:
    decoder = av.CodecContext.create(codec.name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames = [f for p in packets if p.track is Track.VIDEO for f in decoder.decode(av.Packet(p.data))]
    return [frame.to_ndarray(format="gray") for frame in [*frames, *decoder.decode(None)]]


def test_each_frame_and_sound_comes_once_when_it_is_due() -> None:
    slate = Slate(size=Size(width_px=321, height_px=181), text="No signal", sound=SOUND)
    packets = slate.due(0) + slate.due(0) + slate.due(1.55) + slate.due(2.95)
    video = [p for p in packets if p.track is Track.VIDEO]
    sound = [p for p in packets if p.track is Track.AUDIO]
    assert packets[0] is video[0]
    assert [p.pts for p in video] == [9000 * i for i in range(3 * RATE)]
    assert [i for i, p in enumerate(video) if p.key] == [0, RATE, 2 * RATE]
    assert [p.pts for p in sound] == [1024 * i for i in range(len(sound))]
    assert 2.85 < len(sound) * 1024 / 48_000 < 2.95
    shown = pictures(slate.video, packets)
    assert (
        len(shown) == 3 * RATE
        and shown[0].shape == (182, 322)
        and slate.video.size == Size(width_px=322, height_px=182)
    )
    assert all(np.abs(picture.astype(int) - shown[0]).mean() < 1 for picture in shown)


def test_the_text_fits_into_any_picture() -> None:
    for width, height in ((16, 16), (64, 360), (1920, 1080)):
        for text in ("x", "W" * 80):
            picture = card(Size(width_px=width, height_px=height), text)
            assert picture.shape == (height, width)
            assert (picture[:, 0] == picture[0, 0]).all() and (picture[:, -1] == picture[0, 0]).all()
            if width >= 1000:
                assert picture.max() > 200
                assert not score(picture).black  # no alert for what is wanted


def test_its_sound_is_silence() -> None:
    slate = Slate(size=Size(width_px=64, height_px=64), text="x", sound=SOUND)
    assert slate.audio is not None and slate.audio.channels == 2
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = slate.audio.extradata
    heard = [f for p in slate.due(1) if p.track is Track.AUDIO for f in decoder.decode(av.Packet(p.data))]
    assert len(heard) > 40 and all(not np.any(np.abs(frame.to_ndarray()) > 1e-6) for frame in heard)  # type: ignore[union-attr]


@pytest.mark.parametrize(("rate", "channels"), [(12_345, 2), (48_000, 17), (0, 0)])
def test_sound_that_aac_does_not_know_is_left_out(rate: int, channels: int) -> None:
    sound = Codec(
        name="pcm_s16le", extradata=b"", time_base=Fraction(1, 90_000), sample_rate_hz=rate, channels=channels
    )
    slate = Slate(size=Size(width_px=64, height_px=64), text="x", sound=sound)
    assert slate.audio is None and all(p.track is Track.VIDEO for p in slate.due(1))


def gap_of(reader: Reader, epoch: int) -> Gap:
    gap = reader.source.gap_before(epoch)
    assert gap is not None
    return gap


def check_slate(reader: Reader, epoch: int) -> None:
    """An epoch of the slate: at the source's size, with sound, every packet decodable."""
    first = next(b for b in reader.batches if b.span.epoch == epoch)
    assert first.span.start == 0 and first.packets[0].key and first.packets[0].track is Track.VIDEO
    assert str(first.video.size) == "96×64" and first.audio is not None
    assert decoded(reader, epoch) == len(reader.video(epoch))
    assert gap_of(reader, epoch).slate and gap_of(reader, epoch).seconds >= 0.3


def test_silence_shows_it_and_the_source_comes_back_with_a_key_frame(clip: bytes) -> None:
    half = len(clip) // 2 // 188 * 188  # in the middle of a group of pictures
    with TsServer(clip[:half]) as server, reading(open_source(server.uri, options=OPTIONS), server) as reader:
        reader.wait_video(1, RATE)
        assert gap_of(reader, 1).reason == "the source is silent" and reader.source.state.connected
        server.send(clip[half:])
        reader.wait_video(2, 5)
        check_slate(reader, 1)
        back = gap_of(reader, 2)
        assert not back.slate and back.reason == "the source was silent" and back.seconds >= 0.9
        first = next(b for b in reader.batches if b.span.epoch == 2)
        assert first.packets[0].key and reader.source.problems["before_key"] > 0
        reader.wait_video(3, 2)  # silent again
        check_slate(reader, 3)


def test_a_source_that_is_away_shows_it_until_it_is_back(clip: bytes) -> None:
    options = SourceOptions(reconnect_initial_s=1.5, reconnect_max_s=1.5, slate_after_s=0.3)
    with TsServer(clip, hang_up=True) as server, reading(open_source(server.uri, options=options), server) as reader:
        reader.wait_video(0, 30)
        reader.wait_video(2, 30)
        assert reader.epochs[:3] == [0, 1, 2] and decoded(reader, 0) == decoded(reader, 2) == 30
        check_slate(reader, 1)
        assert gap_of(reader, 1).reason == "the source is away: the other side ended the stream"
        assert gap_of(reader, 2).reason == "the source was away: the other side ended the stream"
        assert not gap_of(reader, 2).slate
        # Before the slate and during it: all of the time away, which is half of the pause at least (Backoff).
        assert gap_of(reader, 1).seconds + gap_of(reader, 2).seconds >= 0.75


def test_none_is_shown_before_the_source_was_there() -> None:
    with TsServer(b"") as server, reading(open_source(server.uri, options=OPTIONS), server) as reader:
        until(lambda: reader.idle >= 3)
        assert not reader.batches
