"""What a request asks for becomes settings of the job."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.config import Settings
from pipeline.request import StreamRequest


def asked(**enhance: object) -> Settings:
    request = StreamRequest.model_validate({"source": "a.mp4", "enhance": enhance})
    return request.settings(Settings(), live=False)


def test_the_budget_of_refine_is_the_request_s() -> None:
    assert asked().refine.budget == 0
    assert asked(refine_budget=0.1).refine.budget == 0.1
    with pytest.raises(ValidationError, match="refine_budget"):
        asked(refine_budget=1.5)
