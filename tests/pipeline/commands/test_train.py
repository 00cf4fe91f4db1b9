"""`limpid train`: runs without any data, resumes, and refuses what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import torch

from pipeline.commands import train as command
from pipeline.commands import train_tcsr
from pipeline.errors import ConfigError, ModelError
from pipeline.models.load import load_model, load_tcsr
from pipeline.train import loop, refining
from pipeline.train.loop import Progress
from pipeline.train.refining import RefineRun
from pipeline.train.run import Run

RECIPE = """
name: probe
network: {channels: 8, blocks: 1, expand: 1}
pairs: {patch_px: 48, sheets: 10, scenes: 0}
train: {steps: 12, batch: 2, judge_every: 4, judge_patches: 8}
"""


TCSR = """
name: probe
enhanced_by: f-edsr-x2-nano
network: {channels: 4, features: 8}
pairs: {patch_px: 32, patches: 2, scenes: 1, scene_variants: 1, window_frames: 12, warm_frames: 2, every_frames: 3}
train: {steps: 8, batch: 2, judge_every: 4, judge_windows: 4, device: cpu}
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    config, cache = str(tmp_path / "recipe.yaml"), str(tmp_path / "cache")
    output = str(tmp_path / "out" / "m.safetensors")
    return ["fedsr", "-o", output, "--config", config, "--cache", cache, "--workers", "1", "--device", "cpu"]


def test_it_writes_a_model_and_its_curve_without_any_data(words: list[str], tmp_path: Path) -> None:
    assert command.main(words) == 0
    header, network = load_model(tmp_path / "out" / "m.safetensors")
    assert (header.name, header.metrics["steps"]) == ("probe", 12)
    assert header.trained_on == ("rendered scene (0 streets) and 10 drawn sheets, made by Limpid",)
    assert list(header.ranges) == [name for name, _ in network.layers()]
    assert network.config.expand == 0
    curve = cv2.imread(str(tmp_path / "out" / "m.safetensors.png"))
    assert curve is not None
    assert curve.std() > 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["m.safetensors", "m.safetensors.png"]


def test_an_interrupted_run_goes_on_and_ends_in_the_same_weights(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.main(words) == 0
    output = tmp_path / "out" / "m.safetensors"
    whole = output.read_bytes()
    output.unlink()

    def interrupted(run: Run, *pairs: object, report: Callable[[Progress], None]) -> None:
        def stopping(reached: Progress) -> None:
            report(reached)
            if reached.step == 7:
                raise KeyboardInterrupt

        loop.train(run, *pairs, report=stopping)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(command, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            command.main(words)
    assert (tmp_path / "out" / "m.safetensors.ckpt").exists()
    assert not output.exists()

    assert command.main(words) == 0
    assert output.read_bytes() == whole
    assert not (tmp_path / "out" / "m.safetensors.ckpt").exists()


def test_minutes_replace_the_number_of_steps(words: list[str], tmp_path: Path) -> None:
    assert command.main([*words, "--minutes", "0.001"]) == 0
    header, _ = load_model(tmp_path / "out" / "m.safetensors")
    assert header.metrics["steps"] != 12


def test_a_device_that_is_not_there_is_said_before_pairs_are_made(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device here"):
        command.main([*words, "--device", "cuda"])
    assert not (tmp_path / "cache").exists()


def test_wrong_arguments_are_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        command.main([*words, "--data", str(tmp_path / "nowhere")])
    with pytest.raises(ConfigError, match="-o takes a file's name"):
        command.main(["fedsr", "-o", str(tmp_path)])
    for bad in (["--minutes", "0"], ["--minutes", "nan"], ["--threads", "0"], ["--device", "tpu"], ["--workers", "0"]):
        with pytest.raises(SystemExit) as stop:
            command.main([*words, *bad])
        assert stop.value.code == 2


def test_tcsr_is_trained_resumed_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipe.yaml").write_text(TCSR)
    output = tmp_path / "t.safetensors"
    words = ["tcsr", "-o", str(output), "--config", str(tmp_path / "recipe.yaml"), "--cache", str(tmp_path / "cache")]
    assert command.main(words) == 0
    whole = output.read_bytes()
    header, network = load_tcsr(output)
    assert (header.name, header.kind, header.metrics["steps"]) == ("probe", "tcsr", 8)
    assert header.trained_on == (
        "rendered scene (1 streets), made by Limpid",
        "enhanced by f-edsr-x2-nano in openvino-int8",
    )
    assert network.config.features == 8
    assert sorted(p.suffix for p in tmp_path.glob("t.*")) == [".png", ".safetensors"]

    def interrupted(run: RefineRun, *windows: object, report: Callable[[Progress], None]) -> None:
        def stopping(reached: Progress) -> None:
            report(reached)
            if reached.step == 5:
                raise KeyboardInterrupt

        refining.refine(run, *windows, report=stopping)  # type: ignore[arg-type]

    output.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(train_tcsr, "refine", interrupted)
        with pytest.raises(KeyboardInterrupt):
            command.main(words)
    assert (tmp_path / "t.safetensors.ckpt").exists()
    assert command.main(words) == 0
    assert output.read_bytes() == whole
    assert command.main([*words, "--minutes", "0.001"]) == 0
    assert load_tcsr(output)[0].metrics["steps"] != 8


def test_tcsr_of_another_scale_than_its_enhancer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        TCSR.replace("network: {", "network: {scale: 3, ").replace("pairs: {", "pairs: {scale: 3, ")
    )
    with pytest.raises(ModelError, match="up-scales by 2, not by 3"):
        command.main(["tcsr", "-o", str(tmp_path / "t.safetensors"), "--config", str(tmp_path / "recipe.yaml")])
