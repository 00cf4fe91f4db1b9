"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says nothing on a busy machine; pytest-timeout ends what hangs.
settings.register_profile("limpid", deadline=None)
settings.load_profile("limpid")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips and stills; skips the test where a machine has none."""
    if not SHARED.is_dir():
        pytest.skip("the shared data (real clips, ground truth) is not on this machine")
    return SHARED
