"""Identify the graphs and weights of a model."""

from __future__ import annotations

import hashlib
from weakref import WeakKeyDictionary

import numpy as np

from exactile.contract import DeployedModel

_known: WeakKeyDictionary[DeployedModel, str] = WeakKeyDictionary()
"""Hashing weights takes as long as a small image."""


def graph_hash(model: DeployedModel) -> str:
    """Return the SHA-256 of the graphs and their weights; computed once for each model."""
    known = _known.get(model)
    if known is None:
        known = _known[model] = _hash(model)
    return known


def _hash(model: DeployedModel) -> str:
    found = hashlib.sha256()
    for one in (model, *(level.model for level in model.levels)):
        found.update(one.graph)
        for name in sorted(one.weights):
            found.update(name.encode())
            found.update(np.ascontiguousarray(one.weights[name]).data)
    return found.hexdigest()
