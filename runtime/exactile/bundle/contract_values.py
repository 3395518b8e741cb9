"""Values of ``contract.json``: numbers, names and types within their bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Positive = Annotated[int, Meta(ge=1, le=1 << 31)]
Work = Annotated[float, Meta(ge=0, description="Predicted time of a pass, by that of one pass of the whole network")]
PixelSizeMicrons = Annotated[
    float, Meta(gt=0, le=1e9, description="Side of the pixels, in micrometres, that the model was made for")
]
MacPerPixel = Annotated[
    float,
    Meta(ge=0, le=1e15, description="What one pass computes, in multiply-accumulates in float32; 0: not known"),
]
Stride = Annotated[int, Meta(ge=1, le=1 << 20)]
Margin = Annotated[int, Meta(ge=-(1 << 31), le=1 << 31)]
Channels = Annotated[int, Meta(ge=1, le=1 << 16)]
ResultChannels = Annotated[int, Meta(ge=0, le=1 << 16)]
Rational = Annotated[str, Meta(pattern=r"^-?[0-9]{1,18}(/[1-9][0-9]{0,17})?$", description="A fraction: 3, -1/2")]
FileName = Annotated[
    str,
    Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="A file in the bundle's folder itself"),
]
CalibrationName = Literal["percentile", "entropy", "minmax"]
FloatLayers = Literal["none", "first", "last", "first and last"]
Architecture = Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,32}$", description="Of a CPU: x86_64, arm64; or empty")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Code = Annotated[str, Meta(pattern=r"^([^:]{1,16}:[^:]{1,16}:.{1,64})?$")]
Color = Annotated[str, Meta(pattern=r"^#[0-9a-f]{6}$")]
ImageType = Literal["uint8", "uint16", "float32"]
ResultType = Literal["uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16", "float32"]
WeightType = Literal[
    "float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"
]
MemoryStep = Annotated[
    tuple[float, float, float, float],
    Meta(description="Bytes for a tile of h x w pixels: a*h*w + b*h + c*w + d"),
]
ElementCount = Annotated[
    tuple[float, float, float, float],
    Meta(description="Elements of a tensor for a tile of h x w pixels: a*h*w + b*h + c*w + d"),
]


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the contract; unknown fields are an error."""
