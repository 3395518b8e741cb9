"""Errors that say why a network cannot run in one pass over an image of one size."""

from __future__ import annotations

from exactile.errors import PlanError


class OnePassError(PlanError):
    """The network refuses such images, or its result is not a map of them; the message says why."""


class SizeRefusedError(OnePassError):
    """The network refuses images of this size, or its result loses pixels at it; it may accept others."""


class PlaceUnknownError(SizeRefusedError):
    """The network accepts this size, but at which edges its result lost or gained pixels is unknown."""
