"""Capture devices, by the one that FFmpeg itself has: its test pictures."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pipeline.errors import ConfigError, Unreachable
from pipeline.media.device import Device, is_device


def test_pictures_come_with_their_time() -> None:
    device = Device("device:lavfi:testsrc2=size=64x48:rate=20:duration=0.5")
    try:
        found = list(device.pictures())
    finally:
        device.close()
    assert device.rate == Fraction(20)
    assert [each.at_s for each in found] == [i / 20 for i in range(10)]
    assert found[0].picture.y.shape == (48, 64) and found[0].picture.u.shape == (24, 32)


def test_which_names_are_devices() -> None:
    assert is_device("device:v4l2:/dev/video0") and is_device("/dev/video0")
    assert not is_device("video.mp4") and not is_device("rtmp://host/app")


@pytest.mark.parametrize("name", ["device:", "device:lavfi", "device::x", "device:nosuchkind:0"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        Device(name)


def test_a_device_that_is_absent_says_so() -> None:
    with pytest.raises(Unreachable, match="/dev/video99"):
        Device("/dev/video99")
