"""`limpid publish`, whole: a rendered scene through nginx-rtmp, a trained model at the service; and wrong use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.cli import main
from pipeline.media.degrade import Picture
from pipeline.media.live_encode import LiveEncoder
from pipeline.media.push import FlvOut
from pipeline.media.source import SourceOptions, open_source
from pipeline.media.synthetic import Scene, SceneConfig
from pipeline.store import modelfile
from pipeline.wire.frames import ColorSpec, Size
from tests.live_peers import decoded, reading
from tests.pipeline.publisher.made import generic
from tests.pipeline.publisher.stand_in import Service
from tests.service.test_live_sources import Nginx

ROOT = Path(__file__).parents[3]
LIMPID = (sys.executable, "-c", "import sys; from pipeline.cli import main; sys.exit(main())", "publish")
SCENE = "synthetic://street?width=192&height=128&fps=20&seed=4"


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    made = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def words(tmp_path: Path, source: str, target: str, service: str = "http://127.0.0.1:9", **more: str) -> list[str]:
    options = {"service": service, "stream": "gate-3", "key": str(tmp_path / "key.pem"), **more}
    return [source, target, *(word for name, value in options.items() for word in (f"--{name}", value))]


def scene_file(path: Path) -> Path:
    """60 s of the rendered scene, 192×128 at 10 Hz: two rendered seconds again and again, which is cheaper."""
    size = Size(width_px=192, height_px=128)
    scene = Scene(SceneConfig(width=192, height=128, fps=Fraction(10), seed=4, audio=False))
    pictures = [Picture.from_i420(scene.frame(i).i420, width_px=192, height_px=128) for i in range(20)]
    encoder = LiveEncoder(size=size, rate=Fraction(10), bitrate_bps=2_000_000, color=ColorSpec())
    out = FlvOut(str(path), size=size)
    for i in range(600):
        out.write(encoder.encode(pictures[i % 20], 100 * i))
    out.close()
    return path


def test_frames_and_models_arrive_and_ctrl_c_ends_it(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    """The stand-in checks each model's signature, shapes and values, and each key frame."""
    nginx = Nginx(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LIMPID_TOKEN": "t", "OMP_NUM_THREADS": "1"}
    options = SourceOptions(reconnect_initial_s=0.1, reconnect_max_s=0.3)
    with (
        nginx.running(),
        Service(key.public_key(), token="t") as service,
        reading(open_source(nginx.uri, options=options)) as reader,
        (tmp_path / "log").open("wb") as log,
    ):
        header, net = generic()
        modelfile.save(tmp_path / "generic.safetensors", header, net.state_dict())
        command = words(
            tmp_path,
            str(scene_file(tmp_path / "scene.flv")),
            nginx.uri,
            service.url,
            uplink="20M",
            model=str(tmp_path / "generic.safetensors"),
        )
        with subprocess.Popen(
            [*LIMPID, *command, "--json"], stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True
        ) as process:
            try:
                with service.changed:
                    came = service.changed.wait_for(lambda: service.models, 120)
                assert came, (tmp_path / "log").read_text()
                reader.wait_video(0, 40)
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                said, _ = process.communicate(timeout=30)
            finally:
                process.kill()
        assert process.returncode == 130
        assert decoded(reader, 0) == len(reader.video(0))
    last = json.loads(said.splitlines()[-1])
    assert last["size"] == {"width_px": 96, "height_px": 64} and last["frames"] > 40
    assert last["push"]["dropped"] == 0 and last["frames"] - last["push"]["pushed"] < 40
    assert last["accepted"] >= 1 and last["failed"] == 0
    assert service.most_at_once == 1 and len(service.key_frames) >= 1
    first = service.models[0]
    assert first.parent == "f-edsr-x2@1" and first.version > 1_700_000_000
    assert any("its publisher's" in text for text in first.trained_on)


def test_a_file_is_pushed_to_its_end(
    tmp_path: Path, key: Ed25519PrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a service, and into a file: 30 frames."""
    target = tmp_path / "out.flv"
    assert main(["publish", *words(tmp_path, f"{SCENE}&seconds=1.5", str(target)), "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["frames"] == last["push"]["pushed"] == 30
    source = open_source(str(target))
    assert sum(len(batch) for batch in source.batches(stream="s") if batch is not None) == 30  # type: ignore[arg-type]
    source.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rtmp": "http://host/live"}, "RTMP_URL"),
        ({"service": "host:80"}, "--service"),
        ({"stream": "Gate 3"}, "Gate 3"),
        ({"key": "absent.pem"}, "absent.pem"),
        ({"model": "absent"}, "--model"),
        ({"source": "device:lavfi"}, "SOURCE"),
    ],
)
def test_wrong_use_is_2_and_says_what(
    tmp_path: Path, key: Ed25519PrivateKey, capsys: pytest.CaptureFixture[str], change: dict[str, str], says: str
) -> None:
    source, target = change.pop("source", SCENE), change.pop("rtmp", "rtmp://127.0.0.1/live/a")
    assert main(["publish", *words(tmp_path, source, target, **change)]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["", "fast", "0k", "1"])
def test_a_rate_is_bits_a_second(tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["publish", *words(tmp_path, SCENE, "rtmp://127.0.0.1/live/a", bitrate=rate)])
    assert ended.value.code == 2 and "no rate" in capsys.readouterr().err


def test_a_source_that_is_absent_or_too_small_is_failed_work_or_wrong_use(
    tmp_path: Path, key: Ed25519PrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "out.flv")
    assert main(["publish", *words(tmp_path, str(tmp_path / "absent.mp4"), target)]) == 1
    assert "absent.mp4" in capsys.readouterr().err
    assert main(["publish", *words(tmp_path, f"{SCENE}&seconds=1", target, height="100")]) == 2
    assert "--height" in capsys.readouterr().err
