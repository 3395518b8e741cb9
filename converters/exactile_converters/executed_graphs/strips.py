"""Strips of a network of reduced precision, from the graph that ONNX Runtime makes of it on this machine's CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from exactile.contract import Activation, StripModel
from exactile.errors import ExactileError
from exactile.machine.architecture import architecture
from exactile_converters.cleanup.explicit_windows import write_windows
from exactile_converters.cleanup.explicit_zero_points import write_zero_points
from exactile_converters.deploy_graphs import made_strips
from exactile_converters.executed_graphs.executed import executed
from exactile_converters.geometry.trace import Traced
from exactile_converters.graphs.io import Normalization, ResultWish, Wrapped, wrap
from exactile_converters.networks.network import Network
from exactile_converters.strips.own_sizes import Others
from exactile_converters.strips.refusal import StripError

ACTIVATIONS: dict[str, Activation] = {name: name for name in get_args(Activation)}


def executed_strips(
    network: Network,
    whole: Wrapped,
    traced: Traced,
    image_size: tuple[int, int] | None,
    *,
    normalization: Normalization,
    wish: ResultWish,
) -> tuple[StripModel | None, str, Others]:
    """Return the strips, or why there are none, and the strips for images of other remainders.

    ``network`` is not modified; ``whole`` and ``traced`` are those of its own graph, which one pass runs.
    """
    try:
        wrapped, own = _form(network, whole, traced, image_size, normalization, wish)
    except StripError as error:
        return None, str(error), {}
    return made_strips(wrapped, own, image_size, wanted=True)


def _form(
    network: Network,
    whole: Wrapped,
    traced: Traced,
    image_size: tuple[int, int] | None,
    normalization: Normalization,
    wish: ResultWish,
) -> tuple[Wrapped, Traced]:
    """Return the executed graph with its input and output inside, and its trace. Raises StripError."""
    form = executed(network)
    try:
        own = form.with_own_sizes(form.trace(), image_size)
        if own.geometry != traced.geometry:
            raise StripError("in reduced precision, ONNX Runtime computes a form of another geometry")
        write_windows(own)
        write_zero_points(own.nodes, {name: feature.dtype for name, feature in own.features.items()})
        name = form.result.name or ""
        known = {name: whole.ranges[name]} if name in whole.ranges else {}
        wrapped = wrap(
            form,
            own.features,
            image_dtype=whole.image.dtype,
            normalization=normalization,
            wish=_decided(wish, whole),
            ranges=known,
        )
    except StripError:
        raise
    except ExactileError as error:
        raise StripError(f"in reduced precision, ONNX Runtime computes a form that has no strips: {error}") from error
    if replace(wrapped.result, rule=whole.result.rule, doubt=whole.result.doubt) != whole.result:
        raise StripError("in reduced precision, ONNX Runtime computes a form whose result would be another")
    return replace(wrapped, processor=architecture()), own


def _decided(wish: ResultWish, whole: Wrapped) -> ResultWish:
    """Return ``wish`` with what the network's last operators showed; the executed graph has other operators."""
    found = ACTIVATIONS.get(whole.result.activation)
    return wish if wish.activation is not None or found is None else replace(wish, activation=found)
