"""Which graphs and weights a model has."""

from __future__ import annotations

import hashlib

import numpy as np

from exactile.contract import DeployedModel


def graph_hash(model: DeployedModel) -> str:
    """SHA-256 of the graphs and their weights."""
    found = hashlib.sha256()
    for one in (model, *(level.model for level in model.levels)):
        found.update(one.graph)
        for name in sorted(one.weights):
            found.update(name.encode())
            found.update(np.ascontiguousarray(one.weights[name]).data)
    return found.hexdigest()
