"""Simplify a graph, and check that it computes the same as before: libraries' rewriting rules have faults, too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactile.errors import ModelError
from exactile_converters.cleanup.simplify import simplify
from exactile_converters.geometry.trace import Traced
from exactile_converters.networks.agreement import Agreement
from exactile_converters.networks.network import Network
from exactile_converters.plain_runs.subject import Subject, private_copy

IMAGE_PX = 96
DIFFERING_SHARE = 1e-3
"""Share of integer results (labels) that may differ: ties."""


def simplify_checked(network: Network, traced: Traced) -> None:
    """Clean the graph of ``network`` in place; ``traced`` is its ``trace()``, without obstacles.

    Raises ModelError if its geometry or its result on noise changes.
    """
    before = private_copy(network)
    simplify(network)
    after = network.trace()
    if after.geometry != traced.geometry:
        raise ModelError(f"{network.name}: simplifying the graph changed its geometry; please report this model")
    expected, found = _result(before, traced), _result(private_copy(network), after)
    if expected.shape != found.shape or not _agree(expected, found):
        raise ModelError(f"{network.name}: simplifying the graph changed its result; please report this model")


def _result(copy: Network, traced: Traced) -> NDArray[np.generic]:
    """Return the result of ``copy``, which is consumed, for noise: (C', H', W')."""
    geometry = traced.geometry
    assert geometry is not None
    size = geometry.y.accepted_size(IMAGE_PX), geometry.x.accepted_size(IMAGE_PX)
    subject = Subject(copy, copy.result, traced.features[copy.result.name or ""])
    random = np.random.default_rng(0)
    if subject.dtype.kind in "iu":
        return subject.run(random.integers(0, 256, (*size, subject.channels)))
    return subject.run(random.standard_normal((*size, subject.channels)))


def _agree(expected: NDArray[np.generic], found: NDArray[np.generic]) -> bool:
    if expected.dtype.kind != "f":
        return int(np.count_nonzero(expected != found)) <= DIFFERING_SHARE * expected.size
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(found)):
        return False
    first, second = expected[finite].astype(np.float64), found[finite].astype(np.float64)
    difference, largest = np.abs(first - second).max(initial=0), np.abs(first).max(initial=0)
    agreement = Agreement(max_abs=float(difference), largest=float(largest), images=1)
    return agreement.max_abs <= agreement.tolerance
