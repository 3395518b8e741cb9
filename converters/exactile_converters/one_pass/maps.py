"""The feature maps of a graph at one image size: their shapes, and which of their dimensions are rows and columns.

A graph with obstacles cannot be walked, but shapes can be inferred at one size, and at two more, with more rows and
with more columns: dimensions that grow with the rows are rows. Where the network takes no other size, because it was
exported at its own, the result's dimensions are inferred from their sizes, only where these are unambiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import onnx_ir as ir

from exactile_converters.cleanup.fixed_size import MORE_PX
from exactile_converters.geometry.fact import Fact
from exactile_converters.geometry.feature_maps import FeatureMap, image_shape
from exactile_converters.geometry.node_view import SPATIAL, Label, Labels
from exactile_converters.geometry.probe import Probe
from exactile_converters.geometry.trace import ancestors
from exactile_converters.networks.network import Network
from exactile_converters.one_pass.growth import LARGEST_FACTOR, Growth, NoGrowthError
from exactile_converters.one_pass.place import origin_of
from exactile_converters.one_pass.refusal import OnePassError, PlaceUnknownError, SizeRefusedError
from exactile_converters.one_pass.shapes import first_unknown, node_label, shapes_at

LAYOUTS: Mapping[int, tuple[Labels, ...]] = {
    2: (("y", "x"),),
    3: (("c", "y", "x"), ("y", "x", "c")),
    4: (("n", "c", "y", "x"), ("n", "y", "x", "c")),
}
"""Possible axes of a result, by their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapsAtSize:
    """Results of ``nodes``, in order, for an image of one size: ``facts`` of all values.

    ``features``, by name, are the maps whose rows and columns are known, the network's result among them; ``origin`` is
    where its first pixel lies in the image, in image pixels.
    """

    nodes: Sequence[ir.Node]
    facts: Probe
    features: Mapping[str, FeatureMap]
    origin: Mapping[Label, Fraction]


def maps_at(network: Network, size: tuple[int, int], *, origin: Mapping[Label, Fraction] | None = None) -> MapsAtSize:
    """Return the maps of ``network`` for an image of ``size``, (height, width).

    ``origin`` is where the result lies in the image, where that is known. Raises OnePassError, SizeRefusedError.
    """
    nodes = ancestors(network.model, network.result)
    here = _shapes(network, size, nodes)
    _check(here, size, nodes)
    taller, wider = (_others(network, other, nodes) for other in _larger(size))
    found = {}
    for value in _values(network, nodes):
        one = _grown(value, here, taller, wider, size) if taller is not None and wider is not None else None
        if one is not None:
            found[one.name] = one
    name = network.result.name or ""
    if name not in found:
        free = all(probe is not None and probe.of(network.result) is not None for probe in (taller, wider))
        found[name] = _matched(network, here, size, largest=1 if free else LARGEST_FACTOR)
    return MapsAtSize(nodes=nodes, facts=here, features=found, origin=origin or _origin(network, here, found, size))


def _larger(size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    return (size[0] + MORE_PX, size[1]), (size[0], size[1] + MORE_PX)


def _shapes(network: Network, size: tuple[int, int], nodes: Sequence[ir.Node]) -> Probe:
    return shapes_at(network.model, network.image, image_shape(network.labels, network.channels, size), nodes)


def _others(network: Network, size: tuple[int, int], nodes: Sequence[ir.Node]) -> Probe | None:
    try:
        return _shapes(network, size, nodes)
    except OnePassError:
        return None


def _check(probe: Probe, size: tuple[int, int], nodes: Sequence[ir.Node]) -> None:
    """Raise OnePassError where the shape of a node's result is unknown, SizeRefusedError where it does not fit."""
    unknown = first_unknown(probe, nodes)
    if unknown is None:
        return
    node, reason = unknown
    if reason:
        raise SizeRefusedError(f"it does not take {size[0]} x {size[1]} pixels ({node_label(node)}: {reason})")
    raise OnePassError(
        f"what {node_label(node)} gives has a shape that is not known before it runs, so the memory is not, either"
    )


def _values(network: Network, nodes: Sequence[ir.Node]) -> Iterator[ir.Value]:
    yield network.image
    for node in nodes:
        yield from (value for value in node.outputs if value.name)


def _grown(value: ir.Value, here: Probe, taller: Probe, wider: Probe, size: tuple[int, int]) -> FeatureMap | None:
    """Return the map ``value``; None where it is not a map, or unknown."""
    facts = [probe.of(value) for probe in (here, taller, wider)]
    shapes = [fact.shape for fact in facts if fact is not None and fact.shape is not None]
    if len(shapes) < 3 or len({len(shape) for shape in shapes}) > 1 or facts[0] is None:
        return None
    labels = _labels(*shapes)
    if labels is None:
        return None
    dims = {axis: labels.index(axis) for axis in SPATIAL}
    try:
        growth = {
            axis: Growth.of(image_px, shapes[0][dims[axis]], more_px=MORE_PX, grown=grown[dims[axis]])
            for axis, image_px, grown in zip(SPATIAL, size, shapes[1:], strict=True)
        }
    except NoGrowthError:
        return None
    return _feature(value, labels, facts[0], growth)


def _labels(here: tuple[int, ...], taller: tuple[int, ...], wider: tuple[int, ...]) -> Labels | None:
    """Return the axes of a map whose rows and columns are separate dimensions, else None."""
    labels: list[Label] = []
    for side, high, wide in zip(here, taller, wider, strict=True):
        grows = (high != side, wide != side)
        if all(grows):
            return None
        labels.append("y" if grows[0] else "x" if grows[1] else "c")
    if labels.count("y") != 1 or labels.count("x") != 1:
        return None
    return _with_batch(labels, here)


def _with_batch(labels: Sequence[Label], shape: tuple[int, ...]) -> Labels:
    """Return labels in which other dimensions of size 1 are the batch, but keep one for channels if all are 1."""
    others = [dim for dim, label in enumerate(labels) if label == "c"]
    channels = [dim for dim in others if shape[dim] != 1] or others[1:2]
    return tuple("n" if dim in others and dim not in channels else label for dim, label in enumerate(labels))


def _feature(value: ir.Value, labels: Labels, fact: Fact, growth: Mapping[Label, Growth]) -> FeatureMap:
    return FeatureMap(
        name=value.name or "",
        labels=labels,
        dtype=fact.dtype,
        shape=fact.shape or (),
        scale={axis: one.scale for axis, one in growth.items()},
        constant={axis: one.constant for axis, one in growth.items()},
    )


def _origin(
    network: Network, here: Probe, features: Mapping[str, FeatureMap], size: tuple[int, int]
) -> Mapping[Label, Fraction]:
    """Return the origin. Raises PlaceUnknownError where the result lost or gained pixels at unknown edges."""
    result = features[network.result.name or ""]
    if all(abs(constant) < 1 for constant in result.constant.values()):
        return dict.fromkeys(SPATIAL, Fraction(0))
    found = origin_of(network, result, here.facts, features)
    if found is not None:
        return found
    height, width = (result.shape[result.labels.index(axis)] for axis in SPATIAL)
    raise PlaceUnknownError(
        f"its output has {height} x {width} pixels for an image of {size[0]} x {size[1]}, and where in the image "
        "they lie is not known; pad or crop within the network so that both have the same edges"
    )


def _matched(network: Network, here: Probe, size: tuple[int, int], *, largest: int) -> FeatureMap:
    """Return the result, its axes inferred from sizes: up to ``largest`` times as large or small as the image."""
    fact = here.of(network.result)
    shape = fact.shape if fact is not None and fact.shape is not None else ()
    fitting = [
        (labels, growth) for labels in LAYOUTS.get(len(shape), ()) if (growth := _lies(labels, shape, size, largest))
    ]
    usual = [entry for entry in fitting if entry[0] == network.labels]
    if len(usual or fitting) != 1 or fact is None:
        raise OnePassError(
            f"its output {list(shape)} is no map of an image of {size[0]} x {size[1]} pixels; choose another output "
            "with --output-name"
        )
    labels, growth = (usual or fitting)[0]
    return _feature(network.result, _with_batch([("c" if i == "n" else i) for i in labels], shape), fact, growth)


def _lies(labels: Labels, shape: tuple[int, ...], size: tuple[int, int], largest: int) -> Mapping[Label, Growth] | None:
    """Return how a map of ``shape`` lies over the image if its axes are ``labels``; None where it does not."""
    if "n" in labels and shape[labels.index("n")] != 1:
        return None
    sides = zip(SPATIAL, size, strict=True)
    try:
        growth = {axis: Growth.matched(px, shape[labels.index(axis)], largest) for axis, px in sides}
    except NoGrowthError:
        return None
    return growth if growth["y"] == growth["x"] else None
