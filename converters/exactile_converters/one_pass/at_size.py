"""A network for images of one size: what depends on the size is decided, and its maps are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from exactile_converters.constant_flow.write_out import write_out_constant_flow
from exactile_converters.geometry.feature_maps import image_shape
from exactile_converters.geometry.node_view import SPATIAL, Label
from exactile_converters.geometry.rules.barriers import CONTROL_FLOW
from exactile_converters.geometry.trace import ancestors
from exactile_converters.networks.network import Network
from exactile_converters.one_pass.maps import MapsAtSize, maps_at
from exactile_converters.one_pass.refusal import OnePassError, PlaceUnknownError, SizeRefusedError
from exactile_converters.one_pass.shapes import node_label
from exactile_converters.prepare.from_onnx import clean

USUAL_STRIDES = (2, 4, 8, 16, 32, 64)
"""An image of a refused size is extended to the next multiples of these."""

Exported = tuple[int | None, int | None]
"""Height and width at which a network was exported; None where they may vary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAtSize:
    """``network`` is a copy that may be changed; ``size`` is (height, width) in pixels."""

    network: Network
    size: tuple[int, int]
    maps: MapsAtSize


def network_for(network: Network, image_size: tuple[int, int]) -> NetworkAtSize:
    """Return ``network`` for images of ``image_size``, or of the next larger size that it accepts.

    A result that lost pixels only at ``image_size`` lies where that of larger images does. Raises OnePassError.
    """
    _check_exported_size(network, image_size)
    try:
        return _at_size(network, image_size)
    except SizeRefusedError as refused:
        for size in _larger(image_size):
            try:
                found = _at_size(network, size)
            except SizeRefusedError:
                continue
            if isinstance(refused, PlaceUnknownError):
                return _at_size(network, image_size, found.maps.origin)
            return found
        raise OnePassError(f"{refused}. The same holds for sizes up to {USUAL_STRIDES[-1] - 1} pixels larger") from None


def exported_size(network: Network) -> Exported:
    """Return the size that the graph's input fixes."""
    dims = dict(zip(network.labels, network.image.shape or (), strict=False))
    height, width = (dim if isinstance(dim := dims.get(axis), int) and dim > 0 else None for axis in SPATIAL)
    return height, width


def _larger(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    tried = {size}
    for stride in USUAL_STRIDES:
        height, width = (-(-side // stride) * stride for side in size)
        if (height, width) not in tried:
            tried.add((height, width))
            yield height, width


def _check_exported_size(network: Network, size: tuple[int, int]) -> None:
    """Raise OnePassError where the network was exported at another size, which ONNX Runtime then requires."""
    exported = exported_size(network)
    if all(dim in (None, side) for dim, side in zip(exported, size, strict=True)):
        return
    height, width = (dim if dim is not None else "any" for dim in exported)
    raise OnePassError(
        f"it was exported for images of {height} x {width} pixels, and this one has {size[0]} x {size[1]}; export it "
        "with dynamic height and width, or give it images of its size"
    )


def _at_size(network: Network, size: tuple[int, int], origin: Mapping[Label, Fraction] | None = None) -> NetworkAtSize:
    copy, name = network.copy(), network.result.name
    if write_out_constant_flow(copy.model, copy.image, [image_shape(network.labels, network.channels, size)]):
        clean(copy.model)
        copy = replace(copy, result=next(value for value in copy.model.graph.outputs if value.name == name))
    for node in ancestors(copy.model, copy.result):
        if node.op_type in CONTROL_FLOW and not node.domain:
            raise OnePassError(f"the memory of {node_label(node)} is not known before it runs: it holds subgraphs")
    return NetworkAtSize(network=copy, size=size, maps=maps_at(copy, size, origin=origin))
