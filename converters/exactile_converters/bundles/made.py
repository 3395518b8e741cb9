"""Deploy a network for a bundle: by the rules, or with ``trust_probe`` by what runs of it show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from exactile.bundle.accuracy_parts import AccuracyPart
from exactile.contract import DeployedModel
from exactile.errors import ModelError, OptionError
from exactile_converters.bundles.proven import proven
from exactile_converters.bundles.simplify_checked import simplify_checked
from exactile_converters.bundles.tile_shape import padded_tile
from exactile_converters.bundles.written import OwnOutput
from exactile_converters.cleanup.explicit_windows import write_windows
from exactile_converters.deploy import deploy, deploy_in_passes
from exactile_converters.geometry.trace import Traced
from exactile_converters.inspection import untileable
from exactile_converters.networks.network import Network
from exactile_converters.passes.deploy import obstacles_left, without_statistics
from exactile_converters.reduced_precision.precision import Precision
from exactile_converters.verify.claim_check import Progress, check_claim

ANY_SIZE = (
    "A bundle is for images of any size. exactile run MODEL.onnx IMAGE runs this network in one pass over the whole "
    "image, where that fits the memory; --trust-probe takes tiles of the halo that runs show, where they show one: not "
    "proven."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A deployed model with its padded ``tile``; ``own`` computes the network's own output."""

    model: DeployedModel
    tile: tuple[int, int]
    own: OwnOutput
    accuracy: AccuracyPart | None = None
    untried: str = ""


def is_proven(network: Network) -> bool:
    """Return whether rules prove that the network runs exactly in tiles, with or without passes for statistics."""
    return network.trace().geometry is not None or not obstacles_left(network)


def by_probe(network: Network, precision: Precision, tile: tuple[int, int] | None, wish: Mapping[str, Any]) -> Made:
    """Return the model with the halo that runs show. Raises VerificationError; OptionError for reduced precision."""
    from exactile_converters.probed.deploy import deploy_probed, result_axes, trusted

    if precision != "fp32":
        raise OptionError(f"{network.name}: what --trust-probe finds is found at fp32 alone; leave --precision out")
    found = trusted(network)
    own = OwnOutput.of(network, result_axes(network))
    shape = padded_tile(found.steady.geometry, tile)
    return Made(model=deploy_probed(network, found=found, **wish), tile=shape, own=own)


def by_rules(
    network: Network,
    precision: Precision,
    tile: tuple[int, int] | None,
    wish: Mapping[str, Any],
    of_precision: Callable[[Network], tuple[Network, AccuracyPart | None]],
    progress: Progress | None,
) -> Made:
    """Return the model with the geometry of its graph, checked by runs unless ``progress`` is None.

    Raises NotTileableError, VerificationError.
    """
    traced, in_passes = _traced(network, precision)
    assert traced.geometry is not None
    shape = padded_tile(traced.geometry, tile)
    if not in_passes:
        write_windows(traced)
        simplify_checked(network, traced)
    full, declared = network, network.declared
    network, accuracy = of_precision(network)
    if network is not full and network.trace().geometry != traced.geometry:
        raise ModelError(f"{network.name}: {precision} changed the geometry; please report this model")
    network = replace(network, declared=declared)  # its reduced form is fed the same
    own = OwnOutput.of(network, traced.features[full.result.name or ""].labels)
    checked = check_claim(network, progress=progress) if progress is not None else None
    make = partial(deploy_in_passes, one_pass=True) if in_passes else deploy
    model = proven(
        lambda strips: make(network, strips=strips, **wish),
        checked,
        name=network.name,
        strips=True,
        skipped="--no-verify",
    )
    untried = checked.untried if checked is not None else ""
    return Made(model=model, tile=shape, own=own, accuracy=accuracy, untried=untried)


def _traced(network: Network, precision: Precision) -> tuple[Traced, bool]:
    """Return the trace, and False; or that of the network without its statistics of the whole image, and True.

    Raises NotTileableError, and OptionError for statistics with reduced precision.
    """
    traced = network.trace()
    if traced.geometry is not None:
        return traced, False
    traced = without_statistics(network.copy())[0].trace()
    if traced.geometry is None:
        raise untileable(network, way_out=ANY_SIZE)
    if precision != "fp32":
        raise OptionError(
            f"{network.name} takes statistics of the whole image, which are found at fp32 alone; leave --precision out"
        )
    return traced, True
