"""One rule per operator family. Importing this package registers them all."""

from exactile_converters.geometry.rules import (
    barriers,
    channels,
    convolution,
    pixelwise,
    pooling,
    resampling,
    slicing,
)

__all__ = ["barriers", "channels", "convolution", "pixelwise", "pooling", "resampling", "slicing"]
