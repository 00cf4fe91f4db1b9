from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.wire.frames import ColorSpec, FrameBatch, Size
from pipeline.wire.ids import Span, StreamId
from pipeline.wire.results import GuardReport, GuardResult, QualityReport, RefineReport, RefineResult

SPAN = Span(stream=StreamId("a"), epoch=0, start=4, stop=7)
QUALITY = QualityReport(
    span=SPAN,
    exposure=np.zeros(3, np.float32),
    sharpness=np.zeros(3, np.float32),
    noise=np.zeros(3, np.float32),
    black=np.zeros(3, np.bool_),
    frozen=np.zeros(3, np.bool_),
)
GUARD = GuardReport(
    span=SPAN,
    enhanced=np.zeros(3, np.bool_),
    stability=np.zeros(3, np.float32),
    restored_blocks=np.zeros(3, np.int32),
    model_version="",
)


REFINE = RefineReport(span=SPAN, refined=np.zeros(3, np.bool_))


@pytest.mark.parametrize("column", ["exposure", "sharpness", "noise", "black", "frozen"])
def test_a_quality_report_has_a_row_a_frame(column: str) -> None:
    with pytest.raises(ValueError, match=f"{column} has .* rows, not 3"):
        replace(QUALITY, **{column: np.zeros(2)})


@pytest.mark.parametrize("column", ["enhanced", "stability", "restored_blocks"])
def test_a_guard_report_has_a_row_a_frame(column: str) -> None:
    with pytest.raises(ValueError, match=f"{column} has .* rows, not 3"):
        replace(GUARD, **{column: np.zeros(4)})


def test_a_refine_report_has_a_row_a_frame() -> None:
    with pytest.raises(ValueError, match=r"refined has .* rows, not 3"):
        replace(REFINE, refined=np.zeros(2, np.bool_))


def test_reports_cost_what_their_columns_do() -> None:
    """3 × float32 and 2 × bool: 14 bytes a frame; float32, int32 and bool: 9; one bool: 1."""
    for report in (QUALITY, GUARD, REFINE):
        columns = [getattr(report, name) for name in report.__dataclass_fields__]
        assert report.nbytes == sum(c.nbytes for c in columns if isinstance(c, np.ndarray))


def test_a_guard_result_speaks_of_one_span() -> None:
    pts = np.arange(3, dtype=np.int64)
    frames = FrameBatch(
        span=SPAN, size=Size(width_px=1, height_px=1), color=ColorSpec(), time_base=Fraction(1, 25), pts=pts,
        duration=pts, captured_ns=pts, keyframe=pts == 0, data=np.zeros((3, 3), np.uint8),
    )  # fmt: skip
    assert GuardResult(span=SPAN, frames=frames, report=GUARD).nbytes == 9
    with pytest.raises(ValueError, match="are not both"):
        GuardResult(span=SPAN.part(4, 6), frames=frames, report=GUARD)
    assert RefineResult(span=SPAN, frames=frames, report=REFINE).nbytes == 9
    with pytest.raises(ValueError, match="are not both"):
        RefineResult(span=SPAN.part(4, 6), frames=frames, report=REFINE)
