"""Why a network is not run in one pass over an image of one size."""

from __future__ import annotations

from exactile.errors import PlanError


class OnePassError(PlanError):
    """The network does not take such images, or what it gives is no map of them; the message says why."""


class SizeRefusedError(OnePassError):
    """The network does not take images of this size, or its result has lost pixels then; it may take others."""


class PlaceUnknownError(SizeRefusedError):
    """The network takes images of this size, but which pixels its result lost or gained at the edges is not known."""
