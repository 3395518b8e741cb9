"""Judge one exported network: the verdict, its cause, and how tiles and strips differ from one pass.

One pass is plain ONNX Runtime over the image, extended by reflection where the network refuses its size.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.families import one_pass
from benchmarks.zoo.member import Member
from exactile.contract import DeployedModel
from exactile.errors import ModelError
from exactile.geometry import Geometry
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy, deploy_in_passes, load_network
from exactile_converters.inspection import Inspection, inspect_network
from exactile_converters.networks.network import Network
from exactile_converters.obstacles.kinds import in_the_way
from exactile_converters.probed.locality import find_locality
from exactile_converters.probed.refusal import NotLocalError, TooSlowError
from exactile_converters.torch_export import Exporter, export_onnx

EXPORTERS: tuple[Exporter, ...] = ("torchscript", "dynamo")

EXPORTED = "network.onnx"

PROBED_SECONDS = 60.0
"""Longest time for runs of a network that is refused."""

MORE = (5, 8)
"""Rows and columns of the image beyond whole strides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """``verdict`` is "tiles", "N passes", "no" or "not exported"; ``cause`` says why, for the last two.

    ``halo`` is the largest, top and left / bottom and right, in pixels. ``size`` is that of the image run, and
    ``pieces`` the number of tiles. ``tiles`` and ``strips`` are largest differences from one pass, relative to its
    largest value; None where there are none. ``local`` says what runs show of a network without tiles: the pixels
    beyond which nothing changes the result, or that it is not local.
    """

    verdict: str
    cause: str = ""
    halo: str = ""
    stride: int | None = None
    size: str = ""
    pieces: int | None = None
    tiles: float | None = None
    strips: float | None = None
    local: str = ""


def judged(member: Member, exporter: Exporter, folder: Path) -> Judged:
    """Export ``member`` to ``folder`` and judge it.

    Raises ImportError where the member's package is missing.
    """
    path, module = folder / EXPORTED, member.module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            export_onnx(module, path, 3, member.size, exporter=exporter, stride=member.stride)
        except Exception as error:  # noqa: BLE001  # PyTorch's exporters raise anything
            return Judged(verdict="not exported", cause=_first_line(error))
    network = load_network(path)
    found = inspect_network(network)
    if found.geometry is not None:
        verdict, geometry = "tiles", found.geometry
    elif found.passes is not None:
        verdict, geometry = f"{len(found.passes.passes) + 1} passes", found.passes.geometry
    else:
        return Judged(verdict="no", cause=cause_of(found), local=local_of(network))
    return Judged(verdict=verdict, halo=halo_of(geometry), stride=geometry.y.stride, **compare(path, geometry))


def _first_line(error: BaseException) -> str:
    """The deepest cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:120]


def cause_of(found: Inspection) -> str:
    """The first obstacle that passes do not take: how many nodes of which operator, and why."""
    obstacle = (in_the_way(found.obstacles) or found.obstacles)[0]
    reason = obstacle.reason.partition(", so ")[0].partition(": it multiplies")[0]
    return f"{obstacle.count} {obstacle.op}: {reason}"


def local_of(network: Network) -> str:
    """What runs show of a network that no rule proves local."""
    try:
        return f"local within {find_locality(network, seconds=PROBED_SECONDS).reach}"
    except TooSlowError:
        return f"not known after {PROBED_SECONDS:.0f} s"
    except (NotLocalError, ModelError):
        return "not local"


def halo_of(geometry: Geometry) -> str:
    y, x = geometry.y, geometry.x
    before, after = (max(getattr(axis, side) for axis in (y, x)) for side in ("before", "after"))
    return f"{before} / {after}"


def compare(path: Path, geometry: Geometry) -> dict[str, Any]:
    """Run an image of an odd size in tiles, and in strips where there are any. Return fields of Judged."""
    tile = tuple(_tile(axis.before + axis.after, axis.stride) for axis in (geometry.y, geometry.x))
    size = tuple(
        side + 2 * axis.stride + more for side, axis, more in zip(tile, (geometry.y, geometry.x), MORE, strict=True)
    )
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    model = _deployed(path, (size[0], size[1]))
    fields: dict[str, Any] = {"size": f"{size[0]} x {size[1]}"}
    for plan, name in (("tile", "tiles"), ("strip", "strips")):
        if plan == "strip" and model.strips is None:
            continue
        sink = ArraySink()
        sides = _of_all(model, (size[0], size[1])) if plan == "tile" else None
        summary = Session(model).segment(ArraySource(image), sink, plan=plan, tile=sides)
        if plan == "tile":
            fields["pieces"] = summary.tiles
        fields[name] = difference(sink.result, path, image, summary.domain)
    return fields


def _tile(halo: int, stride: int) -> int:
    return -(-halo // stride) * stride + 3 * stride


def _of_all(model: DeployedModel, size: tuple[int, int]) -> tuple[int, int]:
    """A tile that every pass can use, and that is smaller than the image where its halo allows it."""
    rows, columns = (
        min(px, _side([getattr(one, axis) for one in _geometries(model, size)]))
        for axis, px in zip("yx", size, strict=True)
    )
    return rows, columns


def _geometries(model: DeployedModel, size: tuple[int, int]) -> Iterator[Geometry]:
    for one in (*(level.model for level in model.levels), model):
        yield one.contract.geometry.of_size(size)


def _side(axes: Iterable[Any]) -> int:
    """One that the network takes."""
    axes = list(axes)
    stride = math.lcm(*(axis.stride for axis in axes))
    least = max(_tile(axis.before + axis.after, axis.stride) for axis in axes)
    return least + (axes[-1].remainder - least) % stride


def _deployed(path: Path, size: tuple[int, int]) -> DeployedModel:
    network = load_network(path)
    make = deploy_in_passes if network.trace().obstacles else deploy
    return make(
        network, image_dtype="uint8", output="raw", normalization=Normalization(scale=(255.0,)), image_size=size
    )


def difference(result: np.ndarray, path: Path, image: np.ndarray, domain: tuple[int, int]) -> float:
    """The largest, relative to the largest value of one pass."""
    expected = one_pass(path, image, domain)[:, : result.shape[-2], : result.shape[-1]]
    return float(np.abs(result - expected).max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny))
