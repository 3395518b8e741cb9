"""The error that says why a tileable network has no strip graphs."""

from __future__ import annotations


class StripError(Exception):
    """The network cannot process rows strip by strip. The tile plan remains."""
