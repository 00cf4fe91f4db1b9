"""The report of `limpid eval sr`: what it shows is what was measured, and it needs nothing from outside."""

from __future__ import annotations

import base64
import math
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.commands.eval_page import CROP_PX, Chapter, Score, place_of, write_page
from pipeline.errors import StorageError


class Reader(HTMLParser):
    """Collects the attributes of each tag and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, list[dict[str, str | None]]] = {}
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.setdefault(tag, []).append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def crop(value: int) -> np.ndarray:
    return np.full((8, 8), value, np.uint8)


CHAPTER = Chapter(
    name="street <1> 360@250k",
    times_s=(1.0, 1.5, 2.0),
    true_crop=crop(9),
    scores={
        "bicubic": Score(psnrs_db=(30.0, 31.0, 32.0), ssims=(0.8, 0.9, 0.7), crop=crop(5)),
        "F-EDSR": Score(psnrs_db=(31.0, math.inf, 33.5), ssims=(0.9, 1.0, 0.8), crop=crop(7)),
    },
)


def page(tmp_path: Path) -> Reader:
    write_page(tmp_path / "out" / "sr.html", "A & B", "how", [CHAPTER])
    return Reader((tmp_path / "out" / "sr.html").read_text(encoding="utf-8"))


def test_it_shows_the_means_and_what_each_method_has_above_the_first(tmp_path: Path) -> None:
    chapter = Chapter(name="c", times_s=(0.0,), true_crop=crop(1), scores={
        "plain": Score(psnrs_db=(30.0,), ssims=(0.5,), crop=crop(2)),
        "ours": Score(psnrs_db=(31.25,), ssims=(0.6,), crop=crop(3)),
    })  # fmt: skip
    write_page(tmp_path / "sr.html", "t", "n", [chapter, chapter])
    words = Reader((tmp_path / "sr.html").read_text(encoding="utf-8")).words
    assert words.count("30.00 dB") == 3 and words.count("+1.25") == 3


def test_a_line_a_method_in_each_chart_without_frames_that_are_equal(tmp_path: Path) -> None:
    lines = page(tmp_path).tags["polyline"]
    assert [len(str(line["points"]).split()) for line in lines] == [3, 2, 3, 2, 3, 3]  # PSNR, gain, SSIM


def test_pictures_are_the_crops_and_nothing_comes_from_outside(tmp_path: Path) -> None:
    reader = page(tmp_path)
    values = []
    for image in reader.tags["img"]:
        kind, _, data = str(image["src"]).partition(",")
        assert kind == "data:image/png;base64"
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert shown is not None
        values.append(int(shown[0, 0]))
    assert values == [9, 5, 7]
    assert not {"script", "link", "iframe"} & set(reader.tags)


def test_names_are_text_and_no_markup(tmp_path: Path) -> None:
    assert "street <1> 360@250k" in page(tmp_path).words


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_page(tmp_path / "file" / "sr.html", "t", "n", [CHAPTER])


@pytest.mark.parametrize(("top", "left"), [(0, 0), (40, 70), (204, 304)])
def test_the_place_is_where_the_true_picture_differs_most(top: int, left: int) -> None:
    plain = np.full((300, 400), 90, np.uint8)
    true = plain.copy()
    true[top : top + CROP_PX, left : left + CROP_PX] = 140
    rows, columns = place_of(plain, true)
    assert (rows.start, columns.start) == (top, left)
    assert true[rows, columns].shape == (CROP_PX, CROP_PX) and (true[rows, columns] == 140).all()


def test_a_small_picture_is_shown_whole() -> None:
    rows, columns = place_of(np.zeros((40, 200), np.uint8), np.ones((40, 200), np.uint8))
    assert (rows.start, rows.stop, columns.stop - columns.start) == (0, 40, CROP_PX)
