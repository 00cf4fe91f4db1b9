from __future__ import annotations

import pytest

from pipeline.store.redact import redact, redact_all


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("rtsp://user:pa'ss@cam.example/1", "rtsp://***@cam.example/1"),
        ("https://h/x.m3u8?token=abc&start=5", "https://h/x.m3u8?token=***&start=5"),
        ("https://h/x?X-Amz-Signature=ab&e=012345678901234567890123", "https://h/x?X-Amz-Signature=***&e=***"),
        ("https://h?sig=a", "https://h?sig=***"),
        ("https://h/x?012345678901234567890123", "https://h/x?***"),
        ("cannot open http://a:b@h/x: refused", "cannot open http://***@h/x: refused"),
        ("https://h/a@b/c?start=5", "https://h/a@b/c?start=5"),
        ("synthetic://street?seed=7&key=1&size=640x360", "synthetic://street?seed=7&key=1&size=640x360"),
        ("/videos/token=a?b.mp4", "/videos/token=a?b.mp4"),
    ],
)
def test_secrets_of_urls_are_hidden_and_the_rest_is_kept(given: str, shown: str) -> None:
    assert redact(given) == shown
    assert redact(shown) == shown


def test_whole_configurations_are_redacted() -> None:
    given = {
        "sources": ["http://a:b@h/x"],
        "s3": {"secret": "abc", "token": "", "key_frames": "all"},
        "source_password": "p",
        "limit": 3,
    }
    assert redact_all(given) == {
        "sources": ["http://***@h/x"],
        "s3": {"secret": "***", "token": "", "key_frames": "all"},
        "source_password": "***",
        "limit": 3,
    }
