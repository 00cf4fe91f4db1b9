"""The timeline repairs what a source says of time, and begins an epoch only where design §9 says so.

Time base 1/1000 s for both tracks, so that ticks are milliseconds; video has 25 frames a second (40 ticks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.timeline import Placed, RawPacket, Timeline
from pipeline.wire.frames import Size
from pipeline.wire.packets import Codec, Track

BASE = Fraction(1, 1000)
VIDEO = Codec(name="h264", extradata=b"", time_base=BASE, size=Size(width_px=64, height_px=48), frame_rate=Fraction(25))
REORDERING = replace(VIDEO, reorder_frames=2)
AUDIO = Codec(name="aac", extradata=b"", time_base=BASE, sample_rate_hz=48000, channels=1)


def video(pts: int | None, dts: int | None = None, *, key: bool = False, name: str = "") -> RawPacket:
    return RawPacket(
        track=Track.VIDEO, pts=pts, dts=pts if dts is None else dts, duration=40, key=key, data=name.encode()
    )


def audio(pts: int) -> RawPacket:
    return RawPacket(track=Track.AUDIO, pts=pts, dts=pts, duration=20, key=True, data=b"a")


def place(
    packets: Sequence[RawPacket], *, codec: Codec = VIDEO, sound: Codec | None = AUDIO, wrap_bits: int = 0
) -> tuple[list[Placed], Timeline]:
    timeline = Timeline(video=codec, audio=sound, wrap_bits=wrap_bits)
    out = [placed for packet in packets for placed in timeline.push(packet)]
    return out + timeline.flush(), timeline


def shown(placed: Sequence[Placed], track: Track = Track.VIDEO) -> list[tuple[int, int | None]]:
    return [(p.epoch, p.packet.pts) for p in placed if p.packet.track is track and not p.packet.discard]


def test_clean_stream_passes_to_the_tick() -> None:
    packets = [video(i * 40 - 80, key=i % 5 == 0) for i in range(20)]
    placed, timeline = place(packets)
    assert shown(placed) == [(0, i * 40 - 80) for i in range(20)]  # negative time stamps stay
    assert not timeline.problems


def test_gap_of_up_to_ten_seconds_is_kept() -> None:
    placed, timeline = place([video(0, key=True), video(40), video(10_040), video(10_080)])
    assert shown(placed) == [(0, 0), (0, 40), (0, 10_040), (0, 10_080)]
    assert not timeline.problems


def test_jump_of_more_than_ten_seconds_begins_an_epoch() -> None:
    before = [video(i * 40, key=i == 0) for i in range(5)]
    behind = [video(60_000 + i * 40, key=i == 0) for i in range(5)]
    placed, timeline = place([*before, *behind])
    assert shown(placed) == [*((0, i * 40) for i in range(5)), *((1, 60_000 + i * 40) for i in range(5))]
    assert timeline.problems == {"jump": 1}


def test_jump_backwards_begins_an_epoch() -> None:
    before = [video(60_000 + i * 40, key=i == 0) for i in range(5)]
    behind = [video(i * 40, key=i == 0) for i in range(20)]
    placed, _ = place([*before, *behind])
    assert shown(placed)[5:] == [(1, i * 40) for i in range(20)]


def test_pause_of_one_track_is_no_jump_while_the_other_goes_on() -> None:
    """A still picture for 30 s: the sound's clock shows that time went on."""
    sound = [audio(i * 20) for i in range(1500)]
    placed, timeline = place([video(0, key=True), *sound, video(30_000), video(30_040)])
    assert shown(placed) == [(0, 0), (0, 30_000), (0, 30_040)]
    assert len(shown(placed, Track.AUDIO)) == 1500
    assert not timeline.problems


def test_sound_never_begins_an_epoch_and_follows_video_into_one() -> None:
    """Sound jumps three packets before video does: those wait, and belong to the new epoch."""
    packets = [video(0, key=True), audio(0), video(40), audio(40)]
    packets += [audio(60_000), audio(60_020), audio(60_040), video(60_000, key=True), video(60_040)]
    placed, timeline = place(packets)
    assert shown(placed) == [(0, 0), (0, 40), (1, 60_000), (1, 60_040)]
    assert shown(placed, Track.AUDIO) == [(0, 0), (0, 40), (1, 60_000), (1, 60_020), (1, 60_040)]
    assert timeline.problems == {"jump": 1}


def test_sound_that_video_never_follows_is_dropped_and_counted() -> None:
    packets = [video(0, key=True), audio(0), audio(90_000), video(40), video(80)]
    placed, timeline = place(packets)
    assert shown(placed, Track.AUDIO) == [(0, 0)]
    assert timeline.problems == {"audio_off_clock": 1}


def test_one_packet_alone_that_is_far_off_has_a_broken_stamp() -> None:
    packets = [video(i * 40, key=i == 0) for i in range(40)]
    packets[5] = video(500_000)
    placed, timeline = place(packets)
    assert shown(placed) == [(0, None if i == 5 else i * 40) for i in range(40)]
    assert timeline.problems["broken_pts"] == 1 and timeline.problems["missing_pts"] == 1


def test_jump_inside_a_group_takes_the_group_along_unseen() -> None:
    """A decoder that starts with the new epoch needs the key frame and what lies between."""
    packets = [video(i * 40, key=i == 0, name=str(i)) for i in range(4)]
    packets += [video(60_000 + i * 40, name=str(4 + i)) for i in range(3)]
    placed, _ = place(packets)
    second = [p.packet for p in placed if p.epoch == 1]
    assert [(p.data, p.discard) for p in second] == [
        (b"0", True), (b"1", True), (b"2", True), (b"3", True), (b"4", False), (b"5", False), (b"6", False),
    ]  # fmt: skip
    assert second[0].key


def test_reordered_frames_around_a_jump_go_to_their_own_side() -> None:
    """Coding order I0 P3 B1 B2 | P(60 s) B4 | …: B4 is from before the jump, and refers to the P behind it."""
    rows = [(0, "I0", True), (120, "P3", False), (40, "B1", False), (80, "B2", False)]
    rows += [(60_000, "P5", False), (160, "B4", False), (60_080, "P7", False), (60_040, "B6", False)]
    packets = [
        RawPacket(track=Track.VIDEO, pts=pts, dts=None, duration=40, key=key, data=name.encode())
        for pts, name, key in rows
    ]
    placed, timeline = place(packets, codec=REORDERING, sound=None)
    assert shown(placed) == [(0, 0), (0, 120), (0, 40), (0, 80), (0, 160), (1, 60_000), (1, 60_080), (1, 60_040)]
    first = [(p.packet.data, p.packet.discard) for p in placed if p.epoch == 0]
    assert first[4:] == [(b"P5", True), (b"B4", False)]
    second = [(p.packet.data, p.packet.discard) for p in placed if p.epoch == 1]
    assert second == [
        (b"I0", True), (b"P3", True), (b"B1", True), (b"B2", True),
        (b"P5", False), (b"B4", True), (b"P7", False), (b"B6", False),
    ]  # fmt: skip
    assert timeline.problems == {"jump": 1}


def test_wrap_goes_on_counting() -> None:
    """8 bits: 250, 254, 2 (= 258), 6; the sound wraps on its own."""
    packets = [video(250, key=True), audio(251), video(254), audio(253), video(2), audio(1), video(6)]
    placed, timeline = place(packets, wrap_bits=8)
    assert shown(placed) == [(0, 250), (0, 254), (0, 258), (0, 262)]
    assert shown(placed, Track.AUDIO) == [(0, 251), (0, 253), (0, 257)]
    assert timeline.problems == {"wrap": 1}


def test_second_wrap_goes_on_as_well() -> None:
    values = list(range(0, 700, 50))
    placed, timeline = place([video(v % 256, key=v == 0) for v in values], wrap_bits=8)
    assert [pts for _, pts in shown(placed)] == values
    assert timeline.problems == {"wrap": 2}


def test_wrap_in_the_middle_of_reordered_frames() -> None:
    """pts is beyond the wrap while dts is before it."""
    packets = [video(250, 240, key=True), video(6, 250), video(2, 254)]
    placed, _ = place(packets, codec=REORDERING, wrap_bits=8)
    assert [(p.packet.pts, p.packet.dts) for p in placed] == [(250, 240), (262, 250), (258, 254)]


def test_step_back_continues_where_time_stood() -> None:
    """A loop of 200 ms: frames at 0 to 160, then again from 0. The second of them shows that time was set back."""
    loop = [video(i * 40, key=i == 0) for i in range(5)]
    placed, timeline = place([*loop, *loop])
    pts = [p for _, p in shown(placed)]
    assert pts[:5] == [0, 40, 80, 120, 160]
    assert pts[5] is None  # one packet alone could be a broken stamp; decode puts it at 200
    assert pts[6:] == [240, 280, 320, 360]
    assert {epoch for epoch, _ in shown(placed)} == {0}
    assert timeline.problems["step_back"] == 1


def test_step_back_takes_the_sound_along() -> None:
    lap = [packet for i in range(50) for packet in (video(i * 40, key=i == 0), audio(i * 40))]
    placed, _ = place([*lap, *lap, *lap])
    sound = [p for _, p in shown(placed, Track.AUDIO)]
    assert sound == sorted(sound)  # type: ignore[type-var]
    assert len(sound) >= 147
    for placed_video, placed_audio in zip(shown(placed)[-40:], shown(placed, Track.AUDIO)[-40:], strict=True):
        assert placed_video[1] is not None and placed_audio[1] is not None
        assert abs(placed_video[1] - placed_audio[1]) <= 80


def test_single_step_back_is_a_broken_stamp() -> None:
    packets = [video(i * 40, key=i == 0) for i in range(10)]
    packets[5] = video(40)
    placed, timeline = place(packets)
    assert [p for _, p in shown(placed)] == [0, 40, 80, 120, 160, None, 240, 280, 320, 360]
    assert timeline.problems["broken_pts"] == 1


def test_missing_pts_is_the_dts_where_nothing_is_reordered() -> None:
    raw = RawPacket(track=Track.VIDEO, pts=None, dts=40, duration=40, key=False, data=b"")
    placed, _ = place([video(0, key=True), raw])
    assert shown(placed) == [(0, 0), (0, 40)]
    placed, timeline = place([video(0, key=True), raw], codec=REORDERING)
    assert shown(placed) == [(0, 0), (0, None)]
    assert timeline.problems == {"missing_pts": 1}


def test_stream_without_any_stamp_stays_one_epoch() -> None:
    raw = [RawPacket(track=Track.VIDEO, pts=None, dts=None, duration=0, key=i == 0, data=b"") for i in range(1000)]
    placed, timeline = place(raw, sound=None)
    assert shown(placed) == [(0, None)] * 1000
    assert timeline.problems == {"missing_pts": 1000}


def test_change_of_size_begins_an_epoch_at_its_key_frame() -> None:
    larger = replace(VIDEO, size=Size(width_px=128, height_px=96))
    changed = replace(video(80, key=True), codec=larger)
    placed, timeline = place([video(0, key=True), audio(0), video(40), audio(40), changed, audio(80), video(120)])
    assert shown(placed) == [(0, 0), (0, 40), (1, 80), (1, 120)]
    assert shown(placed, Track.AUDIO) == [(0, 0), (0, 40), (1, 80)]
    assert [p.video.size for p in placed if p.packet.track is Track.VIDEO] == [
        VIDEO.size, VIDEO.size, larger.size, larger.size,
    ]  # fmt: skip
    assert timeline.problems == {"format_change": 1}


def test_change_of_size_while_a_jump_is_looked_at() -> None:
    larger = replace(VIDEO, size=Size(width_px=128, height_px=96))
    packets = [
        video(0, key=True),
        video(40),
        video(60_000),
        replace(video(60_040, key=True), codec=larger),
        video(60_080),
    ]
    placed, _ = place(packets)
    assert shown(placed)[-2:] == [(placed[-1].epoch, 60_040), (placed[-1].epoch, 60_080)]
    assert placed[-1].video.size == larger.size
    assert len(shown(placed)) == 5


def test_sound_before_the_first_picture_is_kept() -> None:
    placed, _ = place([audio(0), audio(20), video(40, key=True), audio(40)])
    assert sorted(p for _, p in shown(placed, Track.AUDIO) if p is not None) == [0, 20, 40]


steps = st.lists(
    st.tuples(st.sampled_from(["video", "audio"]), st.integers(-30_000, 30_000), st.booleans()), max_size=120
)


@given(steps=steps)
def test_no_video_is_lost_epochs_only_rise_and_a_second_pass_is_the_same(
    steps: list[tuple[str, int, bool]],
) -> None:
    packets, now = [], 0
    for number, (kind, step, key) in enumerate(steps):
        now += step if key and abs(step) > 20_000 else 40
        name = str(number)
        packets.append(video(now, key=key, name=name) if kind == "video" else audio(now))
    placed, timeline = place(packets, codec=REORDERING)
    given_names = [p.packet.data for p in placed if p.packet.track is Track.VIDEO and not p.packet.discard]
    assert sorted(given_names) == sorted(p.data for p in packets if p.track is Track.VIDEO)
    epochs = [p.epoch for p in placed]
    assert epochs == sorted(epochs)
    sound = sum(p.packet.track is Track.AUDIO for p in placed)
    assert sound + timeline.problems["audio_off_clock"] == sum(p.track is Track.AUDIO for p in packets)
    again, _ = place(packets, codec=REORDERING)
    assert again == placed
