"""Predict the memory for an image of one size, for ``exactile inspect --size``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from exactile.contract import MemoryModel
from exactile.errors import PlanError
from exactile.plan.budget import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeMemory:
    """Memory for an image of ``height`` x ``width`` pixels.

    ``one_pass_bytes`` are those of activations and weights in one pass over it, None if they are not known or there is
    none; ``kept_bytes`` those of maps that passes keep at a time, None if there are no passes.
    """

    height: int
    width: int
    one_pass_bytes: int | None
    kept_bytes: int | None

    @property
    def sentence(self) -> str:
        whole = "is not known" if self.one_pass_bytes is None else f"takes {format_bytes(self.one_pass_bytes)}"
        found = f"at {self.height} x {self.width} pixels, one pass over the whole image {whole}"
        if self.kept_bytes is None:
            return found
        return (
            f"{found}; in passes, kept maps take up to {format_bytes(self.kept_bytes)} at a time: in memory as far as "
            "half of --memory goes, the rest on the disk of --scratch"
        )


def size_memory(inspection: Any, size: tuple[int, int], whole: Callable[[], MemoryModel | None]) -> SizeMemory:
    """Predict for an image of ``size``, (height, width); ``whole`` gives the memory of one pass of a network with
    obstacles.
    """
    geometry, passes = inspection.geometry, inspection.passes
    memory: MemoryModel | None = inspection.memory if geometry is not None else whole()
    over = size
    if geometry is not None:
        own = geometry.of_size(size)
        over = own.y.accepted_size(size[0]), own.x.accepted_size(size[1])
    return SizeMemory(
        height=size[0],
        width=size[1],
        one_pass_bytes=int(memory.activation_bytes(*over) + memory.weights_bytes) if memory is not None else None,
        kept_bytes=int(passes.kept_bytes * size[0] * size[1]) if passes is not None else None,
    )


def whole_memory(converter: ModuleType, network: Any, size: tuple[int, int]) -> MemoryModel | None:
    """Return the memory of one pass of a network that is not tiled; None if it takes none over images of ``size``."""
    try:
        model = converter.deploy_whole(network, image_size=size, image_dtype="uint8", output="raw")
    except PlanError:
        return None
    found: MemoryModel = model.contract.memory
    return found
