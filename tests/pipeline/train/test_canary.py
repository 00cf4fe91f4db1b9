"""pipeline.train.canary: what a pushed model is worth, and what is none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.errors import ModelError, ModelFormatError, ModelRejected, SignatureError
from pipeline.models.fedsr import FEdsr, FEdsrConfig, input_ranges
from pipeline.store import keyframes, modelfile
from pipeline.store.modelfile import ModelHeader
from pipeline.store.objects import open_store
from pipeline.train.canary import Canary, psnr_of
from pipeline.wire.trials import Contest
from tests import pushed

NOW_NS = 2_000_000_000 * 10**9


@pytest.fixture
def contest(tmp_path: Path) -> Contest:
    for number in range(3):
        keyframes.keep(open_store(str(tmp_path)), pushed.body(number), now_ns=NOW_NS)
    return Contest(
        store=str(tmp_path),
        base="f-edsr",
        scale=2,
        generic="f-edsr-x2@2",
        current="f-edsr-x2@2",
        runtime="openvino-int8",
        threads=1,
        least_version=3,
        keys={"cam": pushed.PUBLIC},
    )


def bicubic_db() -> float:
    """PSNR of bicubic over all three key frames, from the definition."""
    errors = []
    for number in range(3):
        frame = pushed.key_frame(number)
        plain = cv2.resize(frame.low[0], frame.high[0].shape[::-1], interpolation=cv2.INTER_CUBIC)
        errors.append((frame.high[0].astype(float) - plain)[4:-4, 4:-4] ** 2)
    return 10 * math.log10(255**2 / np.mean(errors))


def test_weights_that_add_nothing_are_worth_what_bicubic_is(contest: Contest) -> None:
    trial = Canary().audition(contest, pushed.model(0.0, 3))
    assert trial.psnr_after_db == pytest.approx(bicubic_db())
    assert trial.psnr_before_db > trial.psnr_after_db + 0.2
    assert trial.gain_db == pytest.approx(trial.psnr_after_db - trial.psnr_before_db)
    assert (trial.model, trial.version, trial.parent, trial.publisher) == ("f-edsr-x2@3", 3, "f-edsr-x2@2", "cam")
    assert trial.latest_ns == pushed.key_frame(2).captured_ns


@pytest.mark.parametrize("runtime", ["openvino-int8", "openvino-fp32", "pytorch"])
def test_the_same_weights_are_worth_the_same_and_worse_ones_less(contest: Contest, runtime: str) -> None:
    canary, contest = Canary(), replace(contest, runtime=runtime)
    same, worse = (canary.audition(contest, pushed.model(factor, 3)) for factor in (1.0, -1.0))
    assert same.psnr_before_db == same.psnr_after_db == worse.psnr_before_db
    assert worse.psnr_after_db < same.psnr_after_db - 0.5


def test_a_streams_own_weights_are_what_is_in_use(contest: Contest, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    pushed.write(tmp_path / "models" / "f-edsr-3.safetensors", 0.0, 3)
    trial = Canary().audition(replace(contest, current="f-edsr-x2@3", least_version=4), pushed.model(0.5, 4))
    assert trial.psnr_before_db == pytest.approx(bicubic_db())
    assert trial.psnr_after_db > trial.psnr_before_db and trial.gain_db < 0


def test_gains_are_told_frame_by_frame_and_once(contest: Contest, tmp_path: Path) -> None:
    """With the true residual turned round, what adds nothing is better than what the shipped network adds."""
    (tmp_path / "models").mkdir()
    pushed.write(tmp_path / "models" / "f-edsr-3.safetensors", 0.0, 3)
    keyframes.keep(open_store(str(tmp_path)), pushed.body(3, upside_down=True), now_ns=NOW_NS)
    canary, own = Canary(), replace(contest, current="f-edsr-x2@3")
    gains = canary.gains(own, pushed.key_frame(1).captured_ns)
    assert [gain.captured_ns for gain in gains] == [pushed.key_frame(n).captured_ns for n in (2, 3)]
    assert gains[0].gain_db < 0 < gains[1].gain_db
    assert canary.gains(own, gains[-1].captured_ns) == ()


def network(**config: int) -> bytes:
    torch.manual_seed(3)
    net = FEdsr(FEdsrConfig(**config)).eval().requires_grad_(False)
    ranges = input_ranges(net.fold(), [np.zeros((16, 16), np.uint8)])
    header = ModelHeader(name="mine", kind="f-edsr", version=9, config=net.config.to_dict(), ranges=ranges)
    return pushed.signed(header, net.state_dict(), pushed.KEY)


def test_another_size_is_taken_if_it_is_not_much_dearer(contest: Contest) -> None:
    """The shipped one has 32 channels and a block; with 64 and 6 it is fourteen times as much."""
    for config in ({"channels": 16, "blocks": 0}, {"channels": 32, "blocks": 3, "expand": 2}):
        assert Canary().audition(contest, network(**config)).model == "mine@9"
    with pytest.raises(ModelFormatError, match=r"takes 1\d\.\d times the multiplications .* \(8 times are the limit"):
        Canary().audition(contest, network(channels=64, blocks=6))


@pytest.mark.parametrize("scale", [3, 4])
def test_another_scale_is_refused(contest: Contest, scale: int) -> None:
    with pytest.raises(ModelFormatError, match=f"up-scales by {scale}, and the stream by 2"):
        Canary().audition(contest, network(scale=scale, channels=8, blocks=0))


def test_without_ranges_int8_is_refused_and_float_is_not(contest: Contest) -> None:
    data = pushed.model(1.0, 3, ranges=False)
    with pytest.raises(ModelFormatError, match=r"gives no range for the input of 'head', .* openvino-int8"):
        Canary().audition(contest, data)
    assert Canary().audition(replace(contest, runtime="openvino-fp32"), data).version == 3


def test_only_the_streams_own_publishers_may_sign(contest: Contest) -> None:
    unsigned, foreign = (pushed.model(1.0, 3, key=key) for key in (None, pushed.OTHER_KEY))
    for data, why in ((unsigned, "not signed"), (foreign, "not by this key")):
        with pytest.raises(SignatureError, match=why):
            Canary().audition(contest, data)
    with pytest.raises(SignatureError, match="nobody may sign"):
        Canary().audition(replace(contest, keys={}), pushed.model(1.0, 3))
    two = replace(contest, keys={"other": pushed.keys.public_text(pushed.OTHER_KEY), "cam": pushed.PUBLIC})
    assert Canary().audition(two, foreign).publisher == "other"


def test_what_is_older_or_cannot_be_tried_is_rejected_with_figures(contest: Contest, tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="its version is 2, and the stream has had 2") as found:
        Canary().audition(contest, pushed.model(1.0, 2))
    assert found.value.figures == {"version": 2, "least_version": 3}
    with pytest.raises(ModelRejected, match="no key frame of scale 2"):
        Canary().audition(replace(contest, store=str(tmp_path / "none")), pushed.model(1.0, 3))


def test_what_is_no_model_is_refused(contest: Contest) -> None:
    good = pushed.model(1.0, 3)
    flipped = bytearray(good)
    flipped[-5] ^= 1
    header, state = modelfile.loads(good, where="test")
    state["tail.bias"][0] = float("nan")
    endless = pushed.signed(header, state, None)
    kind = pushed.signed(replace(header, kind="tcsr"), modelfile.loads(good, where="")[1], pushed.KEY)
    state["tail.bias"][0] = 0.0
    shapes = pushed.signed(header, {**state, "tail.bias": torch.zeros(3)}, pushed.KEY)
    named = pushed.model(1.0, 3, name="../x")
    for data in (b"", b"nothing of the kind", good[:-10], bytes(flipped), endless, kind, shapes, named):
        with pytest.raises(ModelError):
            Canary().audition(contest, data)


def test_equal_planes_have_a_finite_psnr() -> None:
    """255² / 1 is 48.13 dB."""
    assert psnr_of(1.0) == pytest.approx(48.1308)
    assert psnr_of(0.0) == psnr_of(1e-9) == 99.0
