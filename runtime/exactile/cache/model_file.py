"""A deployed model in one file, as it was made: every graph and weight bit for bit, and what is one object stays one.

::

    MAGIC | SHA-256 of the rest, 32 bytes | length of the description, 8 bytes, little-endian
          | description, JSON | graphs and arrays, one after the other

The description is plain data: reading it makes objects of the classes below and of no others. It has no version of
its own: files of other code than this are never looked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from exactile.contract import (
    BytesForShape,
    Carry,
    Contract,
    DeployedModel,
    ImageInput,
    ImageStatistics,
    KeptPasses,
    LabelClass,
    Level,
    MemoryModel,
    PlacedModel,
    ResultOutput,
    StripGraph,
    StripModel,
    Verification,
    WholeGraph,
)
from exactile.contract.device_graph import DevicePass, MapLine
from exactile.contract.kept_map import KeptAlong, KeptMap
from exactile.contract.statistic import Statistic
from exactile.geometry import AxisGeometry, Geometry

MAGIC = b"exactile model\n"
LENGTH_BYTES = 8
SHARED_FROM_BYTES = 1 << 12
HEAD_BYTES = 1 << 8
"""Leading bytes by which an array is searched for."""

PLAIN = (bool, int, float, str, type(None))
CLASSES = (
    AxisGeometry,
    BytesForShape,
    Carry,
    Contract,
    DeployedModel,
    DevicePass,
    Geometry,
    ImageInput,
    ImageStatistics,
    KeptAlong,
    KeptMap,
    KeptPasses,
    LabelClass,
    Level,
    MapLine,
    MemoryModel,
    PlacedModel,
    ResultOutput,
    Statistic,
    StripGraph,
    StripModel,
    Verification,
    WholeGraph,
)
BY_NAME: Mapping[str, Any] = {one.__name__: one for one in CLASSES}

Storable = DeployedModel | str
"""The content of a file: a model, or a sentence about one."""


class NotStorableError(TypeError):
    """A value of a kind that files cannot hold."""


class DamagedError(ValueError):
    """A file is not what was written."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The content of a file."""

    description: bytes
    blobs: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        head = len(MAGIC) + hashlib.sha256().digest_size + LENGTH_BYTES
        return head + len(self.description) + sum(map(len, self.blobs))

    def write(self, file: BinaryIO) -> None:
        """Write the file. Raises OSError."""
        digest = hashlib.sha256(self.description)
        for blob in self.blobs:
            digest.update(blob)
        length = len(self.description).to_bytes(LENGTH_BYTES, "little")
        file.writelines((MAGIC, digest.digest(), length, self.description, *self.blobs))


def pack(value: Storable) -> Packed:
    """Return the content for ``value``. Raises NotStorableError."""
    packing = _Packing()
    root = packing.of(value)
    packing.lay_out_bytes()
    description = {"value": root, "objects": packing.objects, "blobs": [len(blob) for blob in packing.blobs]}
    return Packed(json.dumps(description, separators=(",", ":")).encode(), tuple(packing.blobs))


@dataclass(slots=True)
class _Packing:
    """Turn values into plain data: lists whose first item names their kind.

    Equal bytes are stored once, also arrays that graphs hold.
    """

    objects: list[Any] = field(default_factory=list)
    blobs: dict[bytes, int] = field(default_factory=dict)
    _arrays: dict[bytes, None] = field(default_factory=dict)
    _waiting: list[tuple[list[Any], bytes]] = field(default_factory=list)
    _known: dict[int, int] = field(default_factory=dict)

    def of(self, value: object) -> Any:
        if type(value) in PLAIN:
            return value
        found: list[Any]
        match value:
            case bytes():
                found = ["bytes"]
                self._waiting.append((found, value))
            case np.ndarray():
                data = value.tobytes()
                found = ["array", _dtype_name(value.dtype), list(value.shape), self._blob(data)]
                if len(data) >= SHARED_FROM_BYTES:
                    self._arrays[data] = None
            case Fraction():
                found = ["fraction", str(value)]
            case Mapping():
                found = ["mapping", *([self.of(key), self.of(item)] for key, item in value.items())]
            case tuple() | list() if type(value) in (tuple, list):
                found = [type(value).__name__, *map(self.of, value)]
            case _:
                found = ["object", self._object(value)]
        return found

    def lay_out_bytes(self) -> None:
        """Finish once all arrays are known."""
        for found, data in self._waiting:
            end = 0
            for start, array in _places(data, self._arrays):
                found += [self._blob(data[end:start]), self._blob(array)]
                end = start + len(array)
            found.append(self._blob(data[end:]))

    def _blob(self, data: bytes) -> int:
        return self.blobs.setdefault(data, len(self.blobs))

    def _object(self, value: Any) -> int:
        if id(value) not in self._known:
            kind: Any = type(value)
            if kind not in CLASSES:
                raise NotStorableError(f"an object of {kind.__qualname__}")
            parts = {each.name: self.of(getattr(value, each.name)) for each in fields(kind)}
            self.objects.append([kind.__name__, parts])
            self._known[id(value)] = len(self.objects) - 1
        return self._known[id(value)]


def _places(data: bytes, arrays: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the offset in ``data`` of each of ``arrays`` that is found, in this order."""
    end = 0
    for array in arrays:
        start = data.find(array[:HEAD_BYTES], end)
        if start >= 0 and data.startswith(array, start):
            yield start, array
            end = start + len(array)


def _dtype_name(dtype: np.dtype[Any]) -> str:
    """Return numpy's name of the type. Raises NotStorableError for types that numpy alone does not know."""
    if dtype.hasobject or np.dtype(dtype.str) != dtype:
        raise NotStorableError(f"an array of {dtype}")
    return dtype.str


def read(path: Path) -> Storable:
    """Return the stored value. Raises OSError, and DamagedError for any other content."""
    with path.open("rb") as file:
        magic, expected = file.read(len(MAGIC)), file.read(hashlib.sha256().digest_size)
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        left = os.fstat(file.fileno()).st_size - file.tell() - length
        if magic != MAGIC or left < 0:
            raise DamagedError(f"{path} is cut off, or no model")
        description = file.read(length)
        try:
            found = json.loads(description)
            sizes = [int(size) for size in found["blobs"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DamagedError(f"{path} is damaged") from error
        if any(size < 0 for size in sizes) or sum(sizes) != left:
            raise DamagedError(f"{path} has another length than it says")
        blobs = [file.read(size) for size in sizes]
    digest = hashlib.sha256(description)
    for blob in blobs:
        digest.update(blob)
    if digest.digest() != expected:
        raise DamagedError(f"{path} is damaged: its SHA-256 differs")
    return _unpacked(found, blobs)


def _unpacked(found: Mapping[str, Any], blobs: list[bytes]) -> Storable:
    """Build the objects, each after all that it holds."""
    objects: list[Any] = []

    def of(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        kind, *rest = value
        return made[kind](rest)

    made: dict[str, Callable[[list[Any]], Any]] = {
        "bytes": lambda rest: b"".join([blobs[index] for index in rest]),
        "array": lambda rest: np.frombuffer(blobs[rest[2]], rest[0], prod(rest[1])).reshape(rest[1]),
        "fraction": lambda rest: Fraction(rest[0]),
        "mapping": lambda rest: {of(key): of(item) for key, item in rest},
        "object": lambda rest: objects[rest[0]],
        "tuple": lambda rest: tuple(map(of, rest)),
        "list": lambda rest: list(map(of, rest)),
    }

    for name, parts in found["objects"]:
        objects.append(BY_NAME[name](**{key: of(part) for key, part in parts.items()}))
    result: Storable = of(found["value"])
    return result
