"""One pass by plain ONNX Runtime on the CPU over the whole image, and how far a result is from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_kit.networks import normalization, onnx_file
from benchmarks.gpu_kit.pictures import Picture

Maps = NDArray[np.float32]
Labels = NDArray[np.uint8]
TOLERANCE = 1e-4
"""Of the range of the network's output: what float32 sums in another order may differ by, through all layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """``maps`` (K, H, W) and the labels that follow from them."""

    maps: Maps

    @property
    def labels(self) -> Labels:
        return self.maps.argmax(axis=0).astype(np.uint8)

    @property
    def tolerance(self) -> float:
        """The largest difference of maps that is rounding."""
        return TOLERANCE * float(self.maps.max() - self.maps.min())

    def margin(self, where: NDArray[np.bool_]) -> float:
        """By how much the first class wins over the second, at most, among the pixels ``where`` (H, W)."""
        scores = np.sort(self.maps[:, where], axis=0)
        return float((scores[-1] - scores[-2]).max()) if scores.shape[1] else 0.0


def reference(name: str, image: Picture, folder: Path) -> Reference:
    """Return the reference of network ``name`` for ``image`` (H, W, C); kept in ``folder`` for the next image of this
    shape.
    """
    kept = folder / "networks" / f"reference-{name.replace(' ', '-')}-{image.shape[0]}x{image.shape[1]}.npy"
    if kept.exists():
        return Reference(maps=np.load(kept))
    maps = one_pass(onnx_file(name, folder), prepared(name, image))
    kept.parent.mkdir(exist_ok=True)
    part = kept.with_name("part-" + kept.name)
    np.save(part, maps)
    part.replace(kept)
    return Reference(maps=maps)


def prepared(name: str, image: Picture) -> Maps:
    """Return what the network sees: (C, H, W)."""
    divisor, mean, std = ((np.float32(values[0])) for values in _numbers(name))
    return np.ascontiguousarray(((image.astype(np.float32) / divisor - mean) / std).transpose(2, 0, 1))


def one_pass(graph: Path, pixels: Maps) -> Maps:
    """Compute (C, H, W) -> (K, H, W) on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph), onnxruntime.SessionOptions(), ["CPUExecutionProvider"])
    (maps,) = session.run(None, {session.get_inputs()[0].name: pixels[None]})
    found: Maps = maps[0]
    return found


def _numbers(name: str) -> tuple[tuple[float, ...], ...]:
    wanted = normalization(name)
    return wanted.scale, wanted.mean, wanted.std
