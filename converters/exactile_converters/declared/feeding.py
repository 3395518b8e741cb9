"""Feed networks in trial runs with noise of the range that their files declare."""

from __future__ import annotations

from dataclasses import replace

from exactile.errors import OptionError
from exactile_converters.graphs.image_in import fitting_image_type, taken_type
from exactile_converters.graphs.processing import PixelStep, before_network
from exactile_converters.networks.network import Network


def as_fed(network: Network) -> Network:
    """Return a copy that takes samples as stored, normalised in its graph as its file declares, without a declaration.

    Returns ``network`` itself where nothing is declared, or nothing that is known.
    """
    declared = network.declared
    if declared is None:
        return network
    plain = replace(network, declared=None)
    if declared.scaling is None or taken_type(network).kind != "f":
        return plain
    dtype = declared.image_dtype or fitting_image_type(network)
    try:
        normalization = declared.scaling.normalization(dtype)
    except OptionError:
        return plain
    steps = [
        PixelStep(op=op, values=values)
        for op, values, neutral in normalization.steps
        if any(value != neutral for value in values)
    ]
    fed = plain.copy()
    before_network(fed, steps)
    return fed
