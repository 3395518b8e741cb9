"""Why a tileable network has no strip graphs."""

from __future__ import annotations


class StripError(Exception):
    """Rows cannot be handed on through this network one strip after another. The tile plan remains."""
