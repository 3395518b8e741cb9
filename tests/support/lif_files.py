"""Leica LIF files of version 2, written after its description: XML, then a block of samples for each image."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_IDS = {"X": 1, "Y": 2, "Z": 3, "T": 4, "λ": 5}


@dataclass(frozen=True, kw_only=True)
class LifPart:
    """``samples`` as they are stored, slowest axis first; ``axes`` a letter for each, C for channels.

    ``cut`` bytes are left out at the end of its block. ``side`` is the length of Y and of X in metres.
    """

    name: str
    samples: np.ndarray
    axes: str
    names: tuple[str, ...] = ("Gray",)
    side: tuple[float, float] = (1e-4, 1e-4)
    cut: int = 0
    bits: int = field(default=0)


def write_lif(path: Path, *parts: LifPart) -> Path:
    elements = "".join(_element(number, part) for number, part in enumerate(parts))
    header = f'<LMSDataContainerHeader Version="2"><Element Name="project"><Memory Size="0" MemoryBlockID="none"/><Children>{elements}</Children></Element></LMSDataContainerHeader>'  # noqa: E501
    text = header.encode("utf-16-le")
    content = struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(text) // 2) + text
    for number, part in enumerate(parts):
        name = f"MemBlock_{number}".encode("utf-16-le")
        data = part.samples.tobytes()[: part.samples.nbytes - part.cut]
        content += struct.pack("<IIBQBI", 0x70, len(name) + 14, 0x2A, len(data), 0x2A, len(name) // 2) + name + data
    path.write_bytes(content)
    return path


def _element(number: int, part: LifPart) -> str:
    strides = dict(zip(part.axes, part.samples.strides, strict=True))
    lengths = dict(zip(part.axes, part.samples.shape, strict=True))
    bits = part.bits or 8 * part.samples.itemsize
    channels = "".join(
        f'<ChannelDescription DataType="{int(part.samples.dtype.kind == "f")}" ChannelTag="0" Resolution="{bits}" '
        f'NameOfMeasuredQuantity="" Min="0" Max="255" Unit="" LUTName="{name}" IsLUTInverted="0" '
        f'BytesInc="{at * strides.get("C", 0)}" BitInc="0"/>'
        for at, name in enumerate(part.names)
    )
    sides = {"Y": part.side[0], "X": part.side[1]}
    dimensions = "".join(
        f'<DimensionDescription DimID="{_IDS[axis]}" NumberOfElements="{lengths[axis]}" Origin="0" '
        f'Length="{sides.get(axis, 1e-6)}" Unit="{"s" if axis == "T" else "m"}" BitInc="0" BytesInc="{strides[axis]}"/>'
        for axis in reversed(part.axes)
        if axis != "C"
    )
    return (
        f'<Element Name="{part.name}"><Data><Image TextDescription=""><ImageDescription><Channels>{channels}</Channels>'
        f"<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{part.samples.nbytes}" MemoryBlockID="MemBlock_{number}"/><Children/></Element>'
    )
