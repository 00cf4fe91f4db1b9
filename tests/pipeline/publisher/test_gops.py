"""The queue in front of the push: what comes out can be decoded, whatever was dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.push import LivePacket
from pipeline.publisher.gops import GopQueue


def packet(number: int, key: bool) -> LivePacket:
    return LivePacket(pts_ms=100 * number, key=key, data=bytes([number % 256]))


def fill(queue: GopQueue, numbers: range, gop: int = 5) -> None:
    for number in numbers:
        queue.put(packet(number, number % gop == 0))


def taken(queue: GopQueue) -> list[int]:
    out = []
    while (each := queue.take()) is not None:
        out.append(each.pts_ms // 100)
    return out


def test_it_is_a_queue() -> None:
    queue = GopQueue(10)
    fill(queue, range(12))
    assert (len(queue), queue.waiting_s, queue.waiting_bytes) == (12, 1.1, 12)
    assert taken(queue) == list(range(12))
    assert queue.take() is None and queue.waiting_s == 0 and queue.dropped == 0


def test_too_much_drops_the_oldest_group_whole() -> None:
    queue = GopQueue(1.0)
    fill(queue, range(12))
    assert taken(queue) == list(range(5, 12))
    assert queue.dropped == 5


def test_the_rest_of_a_group_that_was_begun_goes_too() -> None:
    queue = GopQueue(1.0)
    fill(queue, range(3))
    assert [queue.take(), queue.take()] == [packet(0, True), packet(1, False)]
    fill(queue, range(3, 14))
    assert taken(queue) == list(range(5, 14))
    assert queue.dropped == 3


def test_a_group_longer_than_the_limit_goes_and_the_next_key_frame_is_waited_for() -> None:
    queue = GopQueue(0.3)
    fill(queue, range(12), gop=10)
    assert taken(queue) == [10, 11]


def test_another_connection_begins_with_a_key_frame() -> None:
    queue = GopQueue(10)
    fill(queue, range(7))
    queue.take()
    queue.restart()
    assert taken(queue) == [5, 6]
    queue.restart()
    fill(queue, range(7, 12))
    assert taken(queue) == [10, 11]


@given(st.lists(st.sampled_from(["put", "key", "take", "restart"]), max_size=80))
def test_what_comes_out_refers_to_what_came_out(does: list[str]) -> None:
    """Each packet is a key frame's or follows the packet before it, since the last restart."""
    queue, number, last = GopQueue(0.7), 0, None
    put = out = 0
    for each in does:
        if each == "restart":
            queue.restart()
            last = None
        elif each == "take":
            got = queue.take()
            if got is not None:
                out += 1
                assert got.key or (last is not None and got.pts_ms == last + 100)
                last = got.pts_ms
        else:
            queue.put(packet(number, each == "key"))
            number, put = number + 1, put + 1
            assert queue.waiting_s <= 0.7
    assert put == out + len(queue) + queue.dropped
