from __future__ import annotations

import pytest

from pipeline.wire.events import EVENT_TYPES, OPERATIONAL, Event
from pipeline.wire.ids import StreamId


def test_the_same_occurrence_has_the_same_name() -> None:
    first = Event(type="quality.degraded", stream=StreamId("gate-3"), epoch=1, seq=250, data={"causes": ["black"]})
    again = Event(type="quality.degraded", stream=StreamId("gate-3"), epoch=1, seq=250)
    assert first.event_id == again.event_id == "gate-3-1-250-quality.degraded"


def test_details_are_canonical_json() -> None:
    one = Event(type="gap", stream=StreamId("a"), epoch=0, seq=-1, data={"b": 1, "a": [0.5]})
    two = Event(type="gap", stream=StreamId("a"), epoch=0, seq=-1, data={"a": [0.5], "b": 1})
    assert one.data_json() == two.data_json() == '{"a":[0.5],"b":1}'


def test_unknown_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown event type quality\.degradd"):
        Event(type="quality.degradd", stream=StreamId("a"), epoch=0, seq=0)


def test_operational_types_are_types() -> None:
    assert OPERATIONAL < EVENT_TYPES
