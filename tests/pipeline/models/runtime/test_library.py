"""pipeline.models.runtime.library: which weights a stamp names, how many engines stay, what is got ready beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ModelError, ModelFormatError
from pipeline.models import SHIPPED
from pipeline.models.runtime import library as libraries
from pipeline.models.runtime.library import Library, Weights
from pipeline.wire.frames import Size
from tests import pushed

SIZE = Size(width_px=48, height_px=32)
RUNTIME = "openvino-fp32"


def opened() -> Library:
    library = Library("cpu")
    library.open(SHIPPED / f"{pushed.NAME}.safetensors")
    return library


def stream(folder: Path, factor: float, version: int = 3) -> str:
    path = folder / "models" / f"f-edsr-{version}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    pushed.write(path, factor, version)
    return str(folder)


def test_each_stream_has_weights_of_its_own_under_one_name(tmp_path: Path) -> None:
    """Of a network whose last convolution is 0 nothing is added to bicubic; the generic one adds something."""
    library = opened()
    nothing, twice = stream(tmp_path / "a", 0.0), stream(tmp_path / "b", 2.0)
    y = np.random.default_rng(1).integers(0, 256, (1, 32, 48), np.uint8)
    made = {}
    for store in (nothing, twice, ""):
        weights = library.weights("f-edsr-x2@3" if store else "", store)
        made[store] = library.engine(weights, SIZE, RUNTIME, 1).residual(y).astype(int)
    assert not made[nothing].any() and made[""].any()
    assert np.abs(made[twice] - 2 * made[""]).max() <= 1, "twice as much, but for rounding"


def test_the_generic_name_is_the_generic_weights_for_every_stream(tmp_path: Path) -> None:
    library = opened()
    assert library.weights(library.generic, str(tmp_path)) == library.weights("", "") == Weights(model=library.generic)


def test_weights_that_are_not_there_damaged_or_others_are_told(tmp_path: Path) -> None:
    library = opened()
    store = stream(tmp_path, 1.0)
    with pytest.raises(ModelError, match=r"asks for the model 'f-edsr-x2@4', which is not there"):
        library.net(Weights(model="f-edsr-x2@4", store=store))
    with pytest.raises(ModelError, match=r"it holds 'f-edsr-x2@3', the stamp asks for 'other@3'"):
        library.net(Weights(model="other@3", store=store))
    with pytest.raises(ModelError, match=r"asks for the model 'f-edsr-x2@9', loaded is 'f-edsr-x2@2'"):
        library.net(Weights(model="f-edsr-x2@9"))
    path = tmp_path / "models" / "f-edsr-3.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFormatError):
        library.net(Weights(model="f-edsr-x2@3", store=store))


def test_the_least_recently_used_engines_go(monkeypatch: pytest.MonkeyPatch) -> None:
    library = opened()
    monkeypatch.setattr(libraries, "NUM_ENGINES", 2)
    weights = library.weights("", "")
    sizes = [Size(width_px=16 + n, height_px=16) for n in range(3)]
    first, second = (library.engine(weights, size, RUNTIME, 1) for size in sizes[:2])
    assert library.engine(weights, sizes[0], RUNTIME, 1) is first
    library.engine(weights, sizes[2], RUNTIME, 1)
    assert len(library) == 2
    assert library.engine(weights, sizes[0], RUNTIME, 1) is first
    assert library.engine(weights, sizes[1], RUNTIME, 1) is not second


def test_large_engines_count_by_their_pixels_and_the_last_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    library = opened()
    monkeypatch.setattr(libraries, "ENGINES_PX", 1)
    weights = library.weights("", "")
    for width in (16, 32):
        library.engine(weights, Size(width_px=width, height_px=16), RUNTIME, 1)
        assert len(library) == 1


def test_what_was_prepared_is_what_is_used(tmp_path: Path) -> None:
    library = opened()
    weights = library.weights("f-edsr-x2@3", stream(tmp_path, 0.5))
    library.prepare(weights, SIZE, RUNTIME, 1)
    (ready,) = library._engines.values()
    library.prepare(weights, SIZE, RUNTIME, 1)
    assert library.engine(weights, SIZE, RUNTIME, 1) is ready and len(library) == 1
