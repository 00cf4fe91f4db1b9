"""The text is what Prometheus' own parser reads, whatever names hold; the documentation is the table."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics import OF_ALL_STREAMS, OF_CAPACITY, OF_STAGES, OF_STREAMS, describe, render
from pipeline.wire.status import STATES, Capacity, Quantiles, StageStatus, StreamStatus

parser = pytest.importorskip("prometheus_client.parser", reason="no prometheus_client, which comes with Ray")

CAPACITY = Capacity(cpus=2.0, gpus=0.0, used_cpus=1.25, streams=1, room_cpus=0.55)
STREAM = StreamStatus(
    id="gate-3",
    source="rtsp://user:secret@camera/1",
    state="running",
    fps_in=25.0,
    fps_out=24.96,
    lag_s=Quantiles(p50=0.1, p95=0.25, p99=0.4),
    latency_s={"enhance": Quantiles(p50=0.06, p95=0.08, p99=0.09)},
    rung=4,
    epoch=2,
    frames=1234,
    model="f-edsr-x2@1",
    runtime="openvino-int8",
    counts={"restarts.ingest": 2, "gap_ms_max": 340},
    last_error="it said secret",
)
STAGE = StageStatus(
    streams=2,
    name="enhance",
    workers=2,
    min=1,
    max=4,
    pending=1,
    queue=3,
    arrival_hz=25.0,
    service_s=0.06,
    utilisation=0.75,
    target_utilisation=0.7,
    latency_s=Quantiles(p50=0.06, p95=0.1, p99=0.2),
)


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def test_what_is_told_is_read_back() -> None:
    found = values(render([STREAM], [STAGE], CAPACITY))
    stream = ("stream", "gate-3")
    for name, labels, value in (
        ("limpid_cpus", (), 2.0),
        ("limpid_room_cpus", (), 0.55),
        ("limpid_streams", (("state", "running"),), 1),
        ("limpid_streams", (("state", "failed"),), 0),
        ("limpid_stage_workers", (("stage", "enhance"),), 2),
        ("limpid_stage_latency_seconds", (("quantile", "0.95"), ("stage", "enhance")), 0.1),
        ("limpid_stream_lag_seconds", (("quantile", "0.95"), stream), 0.25),
        ("limpid_stream_stage_latency_seconds", (("quantile", "0.99"), ("stage", "enhance"), stream), 0.09),
        ("limpid_stream_output_frames_per_second", (stream,), 24.96),
        ("limpid_stream_frames_total", (stream,), 1234),
        ("limpid_stream_epochs_total", (stream,), 3),
        ("limpid_stream_occurrences_total", (("cause", "restarts.ingest"), stream), 2),
        ("limpid_stream_longest_interruption_seconds", (stream,), 0.34),
    ):
        assert found[name, labels] == value, name
    info = (("model", "f-edsr-x2@1"), ("runtime", "openvino-int8"), ("state", "running"), stream)
    assert found["limpid_stream_info", info] == 1
    assert not any("gap_ms_max" in text for _, labels in found for _, text in labels)


def test_every_metric_of_the_table_is_told_with_help_and_type() -> None:
    text = render([STREAM], [STAGE], CAPACITY)
    table = [*OF_CAPACITY, *OF_ALL_STREAMS, *OF_STAGES, *OF_STREAMS]
    for metric in table:
        assert f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.type}\n{metric.name}" in text
        assert re.fullmatch(r"limpid_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert metric.help.endswith(".") and metric.unit
    assert len({metric.name for metric in table}) == len(table)
    assert text.count("# TYPE") == len(table)
    assert text.endswith("\n") and "\r" not in text


def test_no_stream_and_no_stage_leave_what_is_of_the_cluster() -> None:
    found = values(render([], [], CAPACITY))
    assert {name for name, _ in found} == {m.name for m in (*OF_CAPACITY, *OF_ALL_STREAMS)}
    assert sum(name == "limpid_streams" for name, _ in found) == len(STATES)


def test_no_url_and_no_error_is_told() -> None:
    text = render([STREAM], [STAGE], CAPACITY)
    assert "secret" not in text and "camera" not in text


NAMES = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\r\x00\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
)


@given(NAMES, NAMES, st.floats())
def test_any_name_and_any_number_comes_back(name: str, cause: str, number: float) -> None:
    stream = StreamStatus(id=name, source="", state="running", fps_in=number, counts={cause + ".": 1})
    found = values(render([stream], [], CAPACITY))
    read = found["limpid_stream_input_frames_per_second", (("stream", name),)]
    assert read == number or (math.isnan(read) and math.isnan(number))
    assert found["limpid_stream_occurrences_total", (("cause", cause + "."), ("stream", name))] == 1


def test_the_documentation_is_the_table() -> None:
    """To write it anew: python -c "from pipeline.metrics import describe; print(describe())"."""
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert text.endswith("\n\n" + describe())
