"""Rewrite a serialised ONNX graph for OpenVINO so that large constants are read from their address in memory.

OpenVINO copies every constant of a graph, and does not accept constants by name. It reads them in place if a tensor's
external data have the location ``*/_ORT_MEM_ADDR_/*``: ``offset`` is then an address.

Only the needed parts of the format are parsed: of ModelProto the graph (7) and the metadata (14), of GraphProto the
initialisers (5), of TensorProto the name (8), the bytes (9) and their location (13, 14). The rest is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import EngineError

IN_MEMORY = "*/_ORT_MEM_ADDR_/*"
LEAST_BYTES = 1024
"""Smaller constants stay in the graph: shapes and axes are read from there."""

ALIGNMENT_BYTES = 64
_GRAPH, _METADATA = 7, 14
_INITIALIZER = 5
_NAME, _RAW, _EXTERNAL, _LOCATION = 8, 9, 13, 14
_VARINT_REST = 0x7F
_VARINT, _LENGTH = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressedGraph:
    """``graph`` refers to addresses in ``arrays``, which must live as long as it is used. ``metadata`` are its own."""

    graph: bytes
    arrays: tuple[Any, ...]
    metadata: Mapping[str, str]


def addressed(graph: bytes, weights: Mapping[str, NDArray[Any]]) -> AddressedGraph:
    """Return ``graph`` without its large constants and without those of ``weights``, by name, that it keeps outside.

    Raises EngineError if an outside constant is not among ``weights``, or the graph is damaged.
    """
    arrays: list[Any] = [graph]
    parts: list[bytes] = []
    metadata: dict[str, str] = {}
    try:
        for field, begin, content, end in _fields(graph, 0, len(graph)):
            if field == _GRAPH:
                parts.append(_field(_GRAPH, _without_constants(graph, content, end, weights, arrays)))
                continue
            if field == _METADATA:
                entry = {which: graph[first:last].decode() for which, _, first, last in _fields(graph, content, end)}
                metadata[entry.get(1, "")] = entry.get(2, "")
            parts.append(graph[begin:end])
    except (IndexError, UnicodeDecodeError) as error:
        raise EngineError(f"the graph is damaged; convert the model again: {error}") from error
    return AddressedGraph(graph=b"".join(parts), arrays=tuple(arrays), metadata=metadata)


def _without_constants(
    graph: bytes, first: int, last: int, weights: Mapping[str, NDArray[Any]], arrays: list[Any]
) -> bytes:
    parts = []
    for field, begin, content, end in _fields(graph, first, last):
        tensor = _addressed_tensor(graph, content, end, weights, arrays) if field == _INITIALIZER else None
        parts.append(graph[begin:end] if tensor is None else _field(_INITIALIZER, tensor))
    return b"".join(parts)


def _addressed_tensor(
    graph: bytes, first: int, last: int, weights: Mapping[str, NDArray[Any]], arrays: list[Any]
) -> bytes | None:
    """Return a TensorProto with an address; None for one that stays unchanged."""
    parts, name, outside = [], "", False
    raw: tuple[int, int] | None = None
    for field, begin, content, end in _fields(graph, first, last):
        if field == _RAW:
            raw = content, end - content
        elif field in {_EXTERNAL, _LOCATION}:
            outside = outside or field == _EXTERNAL
        else:
            name = graph[content:end].decode() if field == _NAME else name
            parts.append(graph[begin:end])
    if outside:
        if name not in weights:
            raise EngineError(f"the graph's constant {name!r} is outside of it, and not given; convert the model again")
        array = np.ascontiguousarray(weights[name])
    elif raw is not None and raw[1] >= LEAST_BYTES:
        array = _aligned(np.frombuffer(graph, np.uint8, raw[1], raw[0]))
    else:
        return None
    arrays.append(array)
    told = {"location": IN_MEMORY, "offset": str(array.ctypes.data), "length": str(array.nbytes)}
    entries = (_field(_EXTERNAL, _field(1, k.encode()) + _field(2, v.encode())) for k, v in told.items())
    return b"".join((*parts, *entries, _varint(_LOCATION << 3 | _VARINT), b"\x01"))


def _aligned(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``data``, or a copy of it at an aligned address: in a graph, constants lie anywhere."""
    if data.ctypes.data % ALIGNMENT_BYTES == 0:
        return data
    room = np.empty(data.nbytes + ALIGNMENT_BYTES, np.uint8)
    first = -room.ctypes.data % ALIGNMENT_BYTES
    copy = room[first : first + data.nbytes]
    copy[:] = data
    return copy


def _fields(message: bytes, first: int, last: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number of each field of a message, where it begins, where its content begins, and where it ends."""
    at = first
    while at < last:
        begin = at
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            content = at
            _, at = _read_varint(message, at)
        elif kind == _LENGTH:
            size, content = _read_varint(message, at)
            at = content + size
        elif kind in _FIXED_BYTES:
            content, at = at, at + _FIXED_BYTES[kind]
        else:
            raise IndexError(f"wire type {kind} at byte {begin}")
        if at > last:
            raise IndexError(f"the field at byte {begin} ends behind its message")
        yield key >> 3, begin, content, at


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while message[at] > _VARINT_REST:
        value |= (message[at] & _VARINT_REST) << shift
        shift += 7
        at += 1
    return value | message[at] << shift, at + 1


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > _VARINT_REST:
        found.append(value & _VARINT_REST | _VARINT_REST + 1)
        value >>= 7
    found.append(value)
    return bytes(found)
