"""Read the metadata of an ONNX file (``metadata_props``), in which tools say how they feed it."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import onnx

from exactile.errors import ModelError

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
LONGEST_VALUE = 1 << 20
"""Longest value that is read, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """The metadata of a file of ``name``: text by key. Shapes of ``image`` and ``output`` are 0 where a size is free.

    ``place`` is the number of the wanted output; ``floats``: it holds floating-point numbers.
    """

    name: str
    values: Mapping[str, str]
    image: tuple[int, ...]
    output: tuple[int, ...]
    place: int
    floats: bool

    @classmethod
    def of(cls, proto: onnx.ModelProto, name: str, output_name: str | None) -> Self:
        """Read them; ``output_name`` is the wanted output, by default the first."""
        outputs = list(proto.graph.output)
        place = next((place for place, value in enumerate(outputs) if value.name == output_name), 0)
        wanted = outputs[place] if outputs else onnx.ValueInfoProto()
        return cls(
            name=name,
            values={entry.key: entry.value for entry in proto.metadata_props if _is_text(entry)},
            image=_shape(proto.graph.input[0]) if proto.graph.input else (),
            output=_shape(wanted),
            place=place,
            floats=wanted.type.tensor_type.elem_type in FLOATS,
        )

    @property
    def channels_out(self) -> int:
        """Return the channels of the wanted output, (N, C, H, W) or (N, H, W); 0 where unknown."""
        if len(self.output) == 3:
            return 1
        return self.output[1] if len(self.output) == 4 else 0

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Return (height, width) of the image, (N, C, H, W); None where it is free."""
        size = self.image[2:4]
        return (size[0], size[1]) if len(self.image) == 4 and min(size) > 0 else None

    def read(self, key: str) -> Any:
        """Return the value of JSON, or of Python, under ``key``; None where there is none. Raises ModelError."""
        text = self.values.get(key)
        if text is None:
            return None
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
        raise ModelError(f"{self.name}: its metadata say {key} = {text[:60]!r}, which is neither JSON nor Python")

    def number(self, key: str) -> float | None:
        """Return a number. Raises ModelError where there is something else."""
        value = self.read(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ModelError(f"{self.name}: its metadata say {key} = {value!r}; a number is expected")
        return float(value)

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """Return numbers. Raises ModelError where there is something else."""
        value = self.read(key)
        if value is None:
            return None
        found = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not found or not all(type(one) in (int, float) and math.isfinite(one) for one in found):
            raise ModelError(f"{self.name}: its metadata say {key} = {value!r}; numbers are expected")
        return tuple(map(float, found))

    def names(self, key: str) -> tuple[str, ...]:
        """Return the names of classes by number, from 0. Raises ModelError where numbers are missing."""
        value = self.read(key)
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            value = value[min(self.place, len(value) - 1)]
        if value is None:
            return ()
        if isinstance(value, list):
            value = dict(enumerate(value))
        try:
            found = {int(number): str(name) for number, name in value.items()}
        except (AttributeError, TypeError, ValueError):
            found = {}
        if sorted(found) != list(range(len(found))) or not found:
            raise ModelError(
                f"{self.name}: its metadata say {key} = {str(value)[:200]}; names of classes by number, from 0 on "
                "without a gap, are expected"
            )
        return tuple(found[number] for number in range(len(found)))


def _is_text(entry: onnx.StringStringEntryProto) -> bool:
    """Return whether it is text short enough to read; protobuf returns bytes for what is not UTF-8."""
    return isinstance(entry.key, str) and isinstance(entry.value, str) and len(entry.value) <= LONGEST_VALUE


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
