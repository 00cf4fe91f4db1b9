"""`limpid eval sr` on clips made here: the protocol, the table and the JSON."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.commands import eval_sr
from pipeline.models.runtime.choose import pattern
from pipeline.wire.frames import Size

SIZE = Size(width_px=160, height_px=96)
NUM_FRAMES = 12


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one clip of 12 frames, a pattern that moves."""
    folder = tmp_path_factory.mktemp("clips")
    with av.open(str(folder / "moving.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = SIZE.width_px, SIZE.height_px, "yuv420p"
        stream.options = {"crf": "10", "threads": "1"}
        for i in range(NUM_FRAMES):
            i420 = np.full(SIZE.frame_bytes, 128, np.uint8)
            i420[: SIZE.width_px * SIZE.height_px] = np.roll(pattern(SIZE), 2 * i, axis=1).reshape(-1)
            shape = (SIZE.height_px * 3 // 2, SIZE.width_px)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(i420.reshape(shape), format="yuv420p")))
        container.mux(stream.encode(None))
    (folder / "notes.txt").write_text("no clip")
    return folder


def test_a_clip_gives_native_size_and_360_rows_from_its_second_half(clips: Path) -> None:
    """12 frames, middle 6: frames 6, 8 and 10 are measured; 160×96 at 360 rows is 600 wide."""
    sample = eval_sr.Sample(before=4, after=6, every=2)
    native, small = eval_sr.cases(clips / "moving.mp4", sample)
    assert (native.name, small.name) == ("moving 96@500k", "moving 360@250k")
    assert [low.shape for low, _ in native.pairs] == [(48, 80)] * 3
    assert [true.shape for _, true in small.pairs] == [(360, 600)] * 3
    assert native.size == Size(width_px=80, height_px=48)
    assert native.times_s == (6 / 25, 8 / 25, 10 / 25)


def test_the_table_and_the_file_name_every_method_case_and_mean(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sr.json"
    argv = ["eval", "sr", "--data", str(clips), "--quick", "--runtime", "openvino-int8", "--json", str(out)]
    assert main([*argv, "--html", str(tmp_path / "sr.html")]) == 0
    printed = capsys.readouterr()
    page = (tmp_path / "sr.html").read_text(encoding="utf-8")
    assert "F-EDSR openvino-int8" in page and page.count("<img") == 2 * (1 + 3)  # cases × (true + methods)
    assert "1/1 moving.mp4" in printed.err
    for word in ("bicubic", "Lanczos", "F-EDSR openvino-int8", "moving 96@500k", "moving 360@250k", "over bicubic"):
        assert word in printed.out, word
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 3 * (2 + 1) * 2  # methods × (cases + mean) × (PSNR, SSIM)
    assert {row["case"] for row in rows if row["case"].startswith("mean")} == {
        "mean bicubic", "mean Lanczos", "mean F-EDSR openvino-int8",
    }  # fmt: skip


def test_a_peer_stands_in_the_table_where_we_do(clips: Path, shared_data: Path) -> None:
    methods = eval_sr.conventional() | eval_sr.peers(shared_data / "peers", 1)
    scores = eval_sr.evaluate([clips / "moving.mp4"], methods, eval_sr.Sample(before=2, after=2, every=2))
    assert list(scores["moving 96@500k"]) == ["bicubic", "Lanczos", "FSRCNN", "FSRCNN-small", "ESPCN"]
    assert all(10 < s.psnr_db < 60 and 0 < s.ssim <= 1 for s in scores["moving 360@250k"].values())


def test_the_shipped_weights_beat_bicubic_and_fsrcnn_on_real_video(shared_data: Path) -> None:
    """One clip that nobody was trained on, few frames; the whole table is `limpid eval sr`'s."""
    (native, _) = eval_sr.cases(shared_data / "clips" / "dev" / "vda_rollercoaster.mp4", eval_sr.QUICK)
    header, net = eval_sr.load_model(eval_sr.model_path("f-edsr-x2"))
    methods = eval_sr.conventional() | eval_sr.peers(shared_data / "peers", 1)
    methods |= eval_sr.ours(net.fold(), header.ranges, ["openvino-int8"], 1)
    psnr_db = {name: eval_sr.score(native, method(native.size)).psnr_db for name, method in methods.items()}
    assert psnr_db["FSRCNN"] > psnr_db["bicubic"] + 0.3
    assert psnr_db["F-EDSR openvino-int8"] > psnr_db["FSRCNN"] + 0.25


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["eval"], 2, "usage: limpid eval TASK"),
        (["eval", "depth"], 2, "no evaluation 'depth'"),
        (["eval", "sr", "--data", "absent"], 2, "no video file there"),
        (["eval", "sr", "--data", "CLIPS", "--peers", "absent"], 2, "no peers there"),
        (["eval", "sr", "--data", "CLIPS", "--runtime", "tpu"], 2, "no runtime 'tpu'"),
        (["eval", "sr", "--data", "CLIPS", "--model", "absent.safetensors"], 1, "absent.safetensors"),
    ],
)
def test_wrong_use_is_said_in_a_sentence(
    argv: list[str], code: int, said: str, clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(clips) if word == "CLIPS" else word for word in argv]) == code
    printed = capsys.readouterr()
    assert said in printed.out + printed.err and "Traceback" not in printed.err
