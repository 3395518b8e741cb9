"""Under CI, Hypothesis draws the same examples each time; elsewhere new ones, so that every run looks further."""

from __future__ import annotations

import gc
import os
import tempfile

import pytest
from hypothesis import settings

# Verdicts on networks are kept where no user's are; processes that tests start inherit it.
_CACHE = tempfile.TemporaryDirectory(prefix="exactile-tests-", ignore_cleanup_errors=True)
os.environ["EXACTILE_CACHE_DIR"] = _CACHE.name
# Tests change the converter and count what it does: a model that an earlier one left would make them pass or fail idly.
os.environ.setdefault("EXACTILE_CACHE_SIZE", "0")
# ONNX Runtime is imported before exactile by some tests; its thread for usage data does not survive a fork.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_finish() -> None:
    """Spare collections of garbage, one for each session, what torch and the tests' modules hold for good."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def kept_maps(monkeypatch):
    """The stores that runs made."""
    from exactile.kept_maps import store
    from exactile.passes import run

    made: list[store.MapStore] = []

    class Noted(store.MapStore):
        def __init__(self, *args, **options) -> None:
            made.append(self)
            super().__init__(*args, **options)

    monkeypatch.setattr(run, "MapStore", Noted)
    return made
