"""The report of `limpid eval sr`: one HTML file with its pictures in it, that needs nothing else to be read.

For each clip: quality over time, a line a method, and the same place of one frame as each method shows it. The place is
the square whose true picture differs most from bicubic, in the frame that is measured first: it is there that methods
differ, and no method has a say in it.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StorageError

CROP_PX = 96  # side of the square, of the true picture
ZOOM = 2  # each of its pixels is shown as so many
CHART_PX = (350, 170)
MARGIN_PX = (44, 8, 8, 22)  # left, right, top, bottom
COLOURS = ("#8a8f98", "#b07aa1", "#e15759", "#f28e2b", "#76b7b2", "#59a14f", "#4e79a7", "#9c755f")

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 1100px; margin: 0 auto; padding: 1.2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .7rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr + tr td { border-top: 1px solid #8885; }
section { border-top: 1px solid #8888; margin-top: 1.4rem; }
.charts, .crops { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; } figcaption { font-size: .85rem; }
img { image-rendering: pixelated; display: block; }
svg text { font-size: 11px; fill: currentColor; } svg .grid { stroke: #8885; }
.key span { margin-right: 1rem; white-space: nowrap; } .key i { display: inline-block; width: 1.4em; height: .25em;
vertical-align: middle; margin-right: .35em; }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What a method reached on a case, frame by frame, and how it shows the place that is looked at.

    Attributes:
        psnrs_db, ssims: of luma, a value a frame.
        crop: (CROP_PX, CROP_PX) uint8 luma of the first frame, or smaller where the picture is.
    """

    psnrs_db: tuple[float, ...]
    ssims: tuple[float, ...]
    crop: NDArray[np.uint8]

    @property
    def psnr_db(self) -> float:
        """The mean over frames."""
        return float(np.mean(self.psnrs_db))

    @property
    def ssim(self) -> float:
        """The mean over frames."""
        return float(np.mean(self.ssims))

    @property
    def psnr_range(self) -> tuple[float, float]:
        """Of the lowest and the highest frame."""
        return min(self.psnrs_db), max(self.psnrs_db)

    @property
    def ssim_range(self) -> tuple[float, float]:
        """Of the lowest and the highest frame."""
        return min(self.ssims), max(self.ssims)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chapter:
    """One case: seconds of its frames from the clip's start, the true crop, and each method's score."""

    name: str
    times_s: tuple[float, ...]
    true_crop: NDArray[np.uint8]
    scores: Mapping[str, Score]


def place_of(plain_HW: NDArray[np.uint8], true_HW: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Return the square of CROP_PX in which the true luma differs most from the plain up-scale."""
    height, width = true_HW.shape
    side = (min(CROP_PX, width), min(CROP_PX, height))
    error_HW = np.square(true_HW.astype(np.float32) - plain_HW)
    # The mean over the window whose upper left corner is (0, 0): anchored there, borders are left out below.
    mean_HW = np.asarray(cv2.boxFilter(error_HW, -1, side, anchor=(0, 0)))[
        : height - side[1] + 1, : width - side[0] + 1
    ]
    top, left = np.unravel_index(int(mean_HW.argmax()), mean_HW.shape)
    return slice(int(top), int(top) + side[1]), slice(int(left), int(left) + side[0])


def write_page(path: Path, title: str, note: str, chapters: Sequence[Chapter]) -> None:
    """Write the report to `path`, whose folder is made if need be.

    Raises:
        StorageError: it cannot be written.
    """
    body = "\n".join([_summary(chapters), *(_chapter(chapter) for chapter in chapters)])
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head>
<body><h1>{html.escape(title)}</h1><p>{html.escape(note)}</p>
{body}
</body></html>
"""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=str(path), hint="name another file") from error


def _summary(chapters: Sequence[Chapter]) -> str:
    """Return the table of all cases: mean PSNR of the first method, and how much each other one has above it."""
    methods = list(chapters[0].scores)
    cells = [[chapter.scores[name].psnr_db for name in methods] for chapter in chapters]
    cells.append(np.mean(cells, axis=0).tolist())
    names = [chapter.name for chapter in chapters] + ["mean"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *methods])
    lines = []
    for name, row in zip(names, cells, strict=True):
        values = [f"{row[0]:.2f} dB", *(f"{value - row[0]:+.2f}" for value in row[1:])]
        lines.append(f"<tr><td>{html.escape(name)}</td>{''.join(f'<td>{value}</td>' for value in values)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _chapter(chapter: Chapter) -> str:
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(chapter.scores)}
    key = "".join(f'<span><i style="background:{c}"></i>{html.escape(name)}</span>' for name, c in colours.items())
    psnr = {name: score.psnrs_db for name, score in chapter.scores.items()}
    similar = {name: score.ssims for name, score in chapter.scores.items()}
    first = next(iter(psnr))
    gains = {name: tuple(a - b for a, b in zip(line, psnr[first], strict=True)) for name, line in psnr.items()}
    crops = [("true", "", chapter.true_crop)]
    crops += [(name, f" {score.psnrs_db[0]:.2f} dB", score.crop) for name, score in chapter.scores.items()]
    figures = "".join(
        f'<figure><img alt="{html.escape(name)}" width="{crop.shape[1] * ZOOM}" src="{_png(crop)}">'
        f"<figcaption>{html.escape(name)}{figure}</figcaption></figure>"
        for name, figure, crop in crops
    )
    return f"""<section><h2>{html.escape(chapter.name)}</h2><p class="key">{key}</p>
<div class="charts">{_chart("PSNR-Y, dB", chapter.times_s, psnr, colours)}
{_chart(f"PSNR-Y above {first}, dB", chapter.times_s, gains, colours)}
{_chart("SSIM", chapter.times_s, similar, colours)}</div>
<div class="crops">{figures}</div></section>"""


def _chart(
    title: str, times_s: Sequence[float], lines: Mapping[str, Sequence[float]], colours: Mapping[str, str]
) -> str:
    """Return an SVG of values over seconds; equal pictures (infinite PSNR) are left out."""
    width, height = CHART_PX
    left, right, top, bottom = MARGIN_PX
    values = [v for line in lines.values() for v in line if np.isfinite(v)] or [0.0]
    low, high = min(values), max(values)
    spread = max(high - low, 1e-6)
    first, last = times_s[0], max(times_s[-1], times_s[0] + 1e-6)

    def at(t_s: float, value: float) -> str:
        x = left + (t_s - first) / (last - first) * (width - left - right)
        y = height - bottom - (value - low) / spread * (height - top - bottom)
        return f"{x:.1f},{y:.1f}"

    drawn = "".join(
        f'<polyline fill="none" stroke="{colours[name]}" stroke-width="1.6" points="'
        f'{" ".join(at(t_s, v) for t_s, v in zip(times_s, line, strict=True) if np.isfinite(v))}">'
        f"<title>{html.escape(name)}</title></polyline>"
        for name, line in lines.items()
    )
    marks = "".join(
        f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="2" y="{y + 4:.1f}">{value:.4g}</text>'
        for value in (low, (low + high) / 2, high)
        for y in [height - bottom - (value - low) / spread * (height - top - bottom)]
    )
    ends = f'<text x="{left}" y="{height - 6}">{first:.1f} s</text>'
    ends += f'<text x="{width - right}" y="{height - 6}" text-anchor="end">{last:.1f} s</text>'
    label = html.escape(title)
    return (
        f'<figure><svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}">{marks}{drawn}{ends}</svg><figcaption>{label}</figcaption></figure>'
    )


def _png(crop_HW: NDArray[np.uint8]) -> str:
    done, data = cv2.imencode(".png", crop_HW)
    assert done
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
