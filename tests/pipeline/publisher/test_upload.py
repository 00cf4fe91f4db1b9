"""Uploads against a real HTTP server: signed, one at a time, paced, and back after a failure."""

from __future__ import annotations

import queue
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.errors import ConfigError
from pipeline.publisher.learner import Offer
from pipeline.publisher.pace import Bucket
from pipeline.publisher.upload import Outcome, Uploader, check_service
from pipeline.store.keyframes import KeyFrame
from tests.live_peers import free_port
from tests.pipeline.publisher.made import generic, pair
from tests.pipeline.publisher.stand_in import Service

KEY = Ed25519PrivateKey.generate()


class Quick(random.Random):
    """No pauses worth waiting for."""

    def uniform(self, a: float, b: float) -> float:
        return 0.01


def offer(version: int = 7) -> Offer:
    header, net = generic(version)
    key = pair(0)
    frame = KeyFrame(captured_ns=1, low=key.low[None], high=key.high[None])
    return Offer(header=header, state={n: t.numpy() for n, t in net.state_dict().items()}, key_frames=(frame,))


@contextmanager
def uploading(
    url: str, *, token: str = "t", key: Ed25519PrivateKey = KEY, uplink_bps: float = 1e9,
    video_bps: Callable[[], float] = lambda: 0.0,
) -> Iterator[tuple[Uploader, queue.Queue[Outcome]]]:  # fmt: skip
    ended: queue.Queue[Outcome] = queue.Queue()
    uploader = Uploader(
        url,
        "gate-3",
        key=key,
        token=token,
        bucket=Bucket(uplink_bps),
        video_bps=video_bps,
        ended=ended.put,
        rng=Quick(),
    )
    try:
        yield uploader, ended
    finally:
        uploader.close()


def test_a_model_arrives_signed_behind_its_key_frames() -> None:
    with Service(KEY.public_key(), token="t") as service, uploading(service.url + "/") as (uploader, ended):
        uploader.offer(offer())
        outcome = ended.get(timeout=10)
        assert outcome == Outcome(accepted=True, final=True, says="version 7, psnr_before 30.0, psnr_after 30.5")
        assert service.asked == ["PUT /v1/streams/gate-3/key-frames", "PUT /v1/streams/gate-3/models/f-edsr"]
        assert [header.version for header in service.models] == [7]
        assert service.key_frames[0].low.shape == (1, 64, 96)
        assert (uploader.accepted, uploader.refused, uploader.failed) == (1, 0, 0)


@pytest.mark.parametrize(
    ("status", "final", "says"),
    [(409, True, "not better there: HTTP 409: no"), (413, True, "HTTP 413: no"), (403, True, "HTTP 403: no"),
     (503, False, "HTTP 503: no")],
)  # fmt: skip
def test_what_the_service_says_decides_whether_it_is_tried_again(status: int, final: bool, says: str) -> None:
    with Service(KEY.public_key()) as service, uploading(service.url) as (uploader, ended):
        service.answer = status
        uploader.offer(offer())
        assert ended.get(timeout=10) == Outcome(accepted=False, final=final, says=says)


def test_another_key_and_another_token_are_refused() -> None:
    with Service(KEY.public_key(), token="t") as service:
        with uploading(service.url, key=Ed25519PrivateKey.generate()) as (uploader, ended):
            uploader.offer(offer())
            assert ended.get(timeout=10).says.startswith("HTTP 422: model: the signature is not by this key")
        with uploading(service.url, token="wrong") as (uploader, ended):
            uploader.offer(offer())
            assert ended.get(timeout=10).says == "HTTP 401: who are you?"
        assert service.models == []


def test_a_service_that_is_away_ends_the_upload_and_one_that_is_back_takes_the_next() -> None:
    port = free_port()
    with uploading(f"http://127.0.0.1:{port}") as (uploader, ended):
        uploader.offer(offer())
        assert not ended.get(timeout=10).final
        with Service(KEY.public_key(), port=port) as service:
            uploader.offer(offer(8))
            assert ended.get(timeout=10).accepted
            assert [header.version for header in service.models] == [8]


def test_an_upload_stands_back_while_the_video_needs_the_line_and_is_given_up_at_the_end() -> None:
    with (
        Service(KEY.public_key()) as service,
        uploading(service.url, uplink_bps=1e6, video_bps=lambda: 1e6) as (
            uploader,
            ended,
        ),
    ):
        uploader.offer(offer())
        with pytest.raises(queue.Empty):
            ended.get(timeout=0.3)
        assert uploader.sent_bytes == 0


@pytest.mark.parametrize("url", ["", "gate", "ftp://host", "http://", "http://host:port", "http://[::1"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--service"):
        check_service(url)
