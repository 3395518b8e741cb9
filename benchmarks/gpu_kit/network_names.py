"""The networks of the checks, by name."""

from __future__ import annotations

TRAINED = "stain_unet"
FLOATING = (TRAINED, "U-Net 16", "U-Net 32", "U-Net 64", "FC-DenseNet-56", "ResNet U-Net")
IN_PASSES = "U-Net with statistics"
"""Instance normalisation and squeeze-and-excitation: passes over the image before the result."""
INTEGER = ("U-Net 16 integer", "FC-DenseNet-56 integer", "ResNet U-Net integer")
SLOW = ("U-Net 64", "FC-DenseNet-56")
"""Those for which an image of the full size would take too long."""

LARGEST_INTEGER = 7
"""Samples of images for integer networks are at most this."""


def is_integer(name: str) -> bool:
    return name in INTEGER
