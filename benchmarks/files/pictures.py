"""What is read and written."""

from __future__ import annotations

import numpy as np


def tissue_like(size_px: int) -> np.ndarray:
    """Return an image (H, W, 3) uint8 that compresses about as well as stained tissue: smooth shapes and some noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:size_px, 0:size_px].astype(np.float32)
    image = np.empty((size_px, size_px, 3), np.uint8)
    for channel, scale in enumerate((37.0, 53.0, 71.0)):
        shape = 150 + 60 * np.sin(y / scale) * np.cos(x / (scale + 9))
        shape += rng.integers(-6, 7, shape.shape)
        image[..., channel] = shape.clip(0, 255).astype(np.uint8)
    return image


def blobby_labels(size_px: int, classes: int = 5) -> np.ndarray:
    """Return (H, W) uint8: smooth regions of about a hundred pixels with slightly ragged edges."""
    random = np.random.default_rng(0)
    best = np.full((size_px, size_px), -np.inf, np.float32)
    labels = np.zeros((size_px, size_px), np.uint8)
    for label in range(classes):
        score = _smooth_field(random, size_px, 64) + 0.05 * _smooth_field(random, size_px, 2)
        labels[score > best] = label
        np.maximum(best, score, out=best)
    return labels


def _smooth_field(random: np.random.Generator, size: int, period: int) -> np.ndarray:
    """Return (size, size) float32: noise on a grid of ``period`` pixels, linearly interpolated."""
    coarse = random.standard_normal((size // period + 2, size // period + 2), np.float32)
    whole, part = np.divmod(np.arange(size), period)
    weight = (part / period).astype(np.float32)
    rows = coarse[whole] * (1 - weight)[:, None] + coarse[whole + 1] * weight[:, None]
    return rows[:, whole] * (1 - weight) + rows[:, whole + 1] * weight
