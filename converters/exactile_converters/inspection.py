"""The verdict on a network: its geometry, or the obstacles, with its inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from exactile.errors import NotTileableError
from exactile.geometry import Geometry
from exactile_converters.from_onnx import Network
from exactile_converters.geometry.obstacle import Obstacle


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A graph input or output; unknown dimensions are names, or "?"."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """``geometry`` is None exactly when there are obstacles."""

    geometry: Geometry | None
    obstacles: tuple[Obstacle, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def inspect_network(network: Network) -> Inspection:
    """Walk the network's graph and report."""
    traced = network.trace()
    return Inspection(
        geometry=traced.geometry,
        obstacles=traced.obstacles,
        inputs=tuple(map(_tensor, network.model.graph.inputs)),
        outputs=tuple(map(_tensor, network.model.graph.outputs)),
    )


def not_tileable(name: str, obstacles: tuple[Obstacle, ...]) -> NotTileableError:
    """The error that lists the obstacles."""
    shown = "\n".join(f"  {obstacle}" for obstacle in obstacles[:10])
    more = f"\n  ... and {len(obstacles) - 10} more" if len(obstacles) > 10 else ""
    return NotTileableError(f"{name} cannot be tiled exactly:\n{shown}{more}")


def _tensor(value: ir.Value) -> Tensor:
    dims = value.shape if value.shape is not None else ()
    shape = tuple(dim if isinstance(dim, int) else (dim.value or "?") for dim in dims)
    return Tensor(name=value.name or "?", dtype=value.dtype.numpy().name if value.dtype else "?", shape=shape)
