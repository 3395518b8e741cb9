"""Models that run in one pass over images of one size, because of obstacles to exact tiling."""

from __future__ import annotations

from dataclasses import replace

from exactile.contract import Contract, DeployedModel, Verification
from exactile.errors import NotTileableError, OptionError, PlanError
from exactile.geometry import Geometry
from exactile.plan.background import Background
from exactile.plan.border import Border

MOST_LISTED = 10


def model_in_one_pass(model: DeployedModel, size: tuple[int, int]) -> DeployedModel | None:
    """Return ``model`` for images of ``size``, (height, width), in one pass instead of several; None if it has no
    graph.
    """
    whole = model.whole
    if whole is None:
        return None
    axes = (
        axis.of_size(px) for axis, px in zip((model.contract.geometry.y, model.contract.geometry.x), size, strict=True)
    )
    y, x = (axis.alone(axis.accepted_size(px)) for axis, px in zip(axes, size, strict=True))
    contract = replace(
        model.contract,
        geometry=Geometry(y=y, x=x),
        memory=whole.memory,
        verification=Verification(by="one pass"),
        obstacles=whole.obstacles,
        only_size=size,
        in_passes=True,
    )
    return DeployedModel(
        contract=contract,
        graph=whole.graph,
        weights=model.weights,
        claims=model.claims,
        no_strips_reason=f"it runs in one pass, because of {whole.obstacles[0]}",
    )


def pass_size(contract: Contract) -> tuple[int, int]:
    """Return the size that such a model runs over: the image, extended to an accepted size; (height, width)."""
    return contract.geometry.y.accepted_size(1), contract.geometry.x.accepted_size(1)


def reason(contract: Contract) -> str:
    """Return why there is one pass, and over what."""
    first, *others = contract.obstacles
    more = f" (and {len(others)} more)" if others else ""
    height, width = pass_size(contract)
    extended = "" if (height, width) == contract.only_size else f", extended to {height} x {width} pixels,"
    if contract.in_passes:
        return (
            f"one pass over the whole image{extended}{'' if extended else ','} which is the fastest where it fits the "
            f"memory; in tiles, passes for statistics of the whole image would come before, because of {first}{more}"
        )
    return (
        f"one pass over the whole image{extended}{'' if extended else ','} because of {first}{more}; exactile inspect "
        "lists what to change in the network"
    )


def refused_tiles(contract: Contract) -> str:
    """Return why there are no tiles, and which model has them."""
    if contract.in_passes:
        return (
            f"{contract.model_name} was deployed for one pass; it takes statistics of the whole image, and runs in "
            f"tiles after passes for these (exactile run with --plan auto; deploy_in_passes):\n{_listed(contract)}"
        )
    return f"{contract.model_name} cannot be tiled exactly:\n{_listed(contract)}"


def _listed(contract: Contract) -> str:
    """Return the obstacles, a line each."""
    shown = [f"  {obstacle}" for obstacle in contract.obstacles[:MOST_LISTED]]
    more = len(contract.obstacles) - len(shown)
    return "\n".join([*shown, *([f"  ... and {more} more"] if more else [])])


def check_one_pass(
    contract: Contract,
    image: tuple[int, int],
    *,
    plan: str,
    tile: tuple[int, int] | None,
    border: Border,
    background: Background | None,
) -> None:
    """Check that the request for an ``image``, (height, width), is one pass.

    Raises NotTileableError for other plans, OptionError for options of tiles, PlanError for another size.
    """
    size = contract.only_size
    if image != size:
        wanted = f"{size[0]} x {size[1]}" if size is not None else "no"
        raise PlanError(
            f"{contract.model_name} was deployed for images of {wanted} pixels, for it runs in one pass only, and this "
            f"one has {image[0]} x {image[1]}; deploy it for this size"
        )
    if plan == "strip" or (plan == "tile" and tile is None) or (tile is not None and tile != pass_size(contract)):
        what = f"--plan {plan}" if tile is None else f"--tile {tile[0]}x{tile[1]}"
        raise NotTileableError(
            f"{what}: {refused_tiles(contract)}\n"
            "What to do: --plan whole, or auto, runs it in one pass over the whole image"
        )
    if border != "model":
        raise OptionError(f"--border {border} extends the image by the halo; this network has none: {reason(contract)}")
    if background is not None:
        raise OptionError(f"--skip-background leaves out tiles, and there are none: {reason(contract)}")
