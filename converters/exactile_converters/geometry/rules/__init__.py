"""One rule per operator family. Importing this package registers them all."""

from exactile_converters.geometry.rules import (
    barriers,
    channels,
    convolution,
    normalization,
    pixelwise,
    pooling,
    products,
    quantized,
    resampling,
    reshaping,
    slicing,
)

__all__ = [
    "barriers",
    "channels",
    "convolution",
    "normalization",
    "pixelwise",
    "pooling",
    "products",
    "quantized",
    "resampling",
    "reshaping",
    "slicing",
]
