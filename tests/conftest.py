"""Under CI, Hypothesis draws the same examples each time; elsewhere new ones, so that every run looks further."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
