"""Damaged contracts of a bundle: every field missing, of another type, huge, negative, nested, twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.models import BUNDLE
from fuzz.recipe import Recipe, draw

Random = np.random.Generator
Path_ = tuple[Any, ...]
"""Keys and positions from the top of the contract to a value."""

PLACEHOLDER = "@placeholder@"
RAW = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "0.5", "9" * 5000, "1" + "0" * 400, "0x10",
    "1_000", "'a'", "tru", '"\\ud800"', '"\\u0000"', '"\x01"', "[" * 100_000, "[" * 100_000 + "]" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000, "[1,]", "{}", "[]", '""', "null", "true",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 7, 255, 65536, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63))
STRINGS = (
    "", " ", "../graph.onnx", "/etc/passwd", "graph.onnx", "strip-body.onnx", "weights.bin", "contract.json", "..",
    "x" * 10**6, "\n", "1/0", "0/1", "-1/2", "1/3", "9" * 18, "float64", "uint16", "int8", "percentile", "raw",
    "probabilities", "#00000g", "\N{SNOWMAN}", "exactile.bundle", "\x1b[31m",
)  # fmt: skip


def contract_recipe(seed: int) -> Recipe:
    return draw("contract", [BUNDLE], list(MUTATIONS), seed)


def contract_case(recipe: Recipe, shared: Path) -> bytes:
    """Return the contract.json of a recipe."""
    data, rng = (shared / recipe.base / "contract.json").read_bytes(), recipe.random()
    for mutation in recipe.mutations:
        data = MUTATIONS[mutation](data, rng)
    return data


def _pick(items: Sequence, rng: Random):
    return items[int(rng.integers(len(items)))]


def _paths(value: Any, path: Path_ = ()) -> list[Path_]:
    """Return every value in the contract."""
    children = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [path] * bool(path) + [found for key, child in children for found in _paths(child, (*path, key))]


def _get(contract: Any, path: Path_) -> Any:
    for key in path:
        contract = contract[key]
    return contract


def _edited(change: Callable[[Any, Path_, Random], None], kinds: type | tuple[type, ...] = object) -> Callable:
    """Return a mutation that edits the contract at some value of one of ``kinds``."""

    def mutate(data: bytes, rng: Random) -> bytes:
        try:
            contract = json.loads(data)
            paths = [path for path in _paths(contract) if isinstance(_get(contract, path), kinds)]
        except (ValueError, RecursionError):  # an earlier mutation left no JSON
            return data
        if paths:
            change(contract, _pick(paths, rng), rng)
        return json.dumps(contract, indent=2).encode()

    return mutate


def _set(value: Callable[[Any, Random], Any]) -> Callable[[Any, Path_, Random], None]:
    def change(contract: Any, path: Path_, rng: Random) -> None:
        parent = _get(contract, path[:-1])
        parent[path[-1]] = value(parent[path[-1]], rng)

    return change


def _remove(contract: Any, path: Path_, _rng: Random) -> None:
    del _get(contract, path[:-1])[path[-1]]


def _add(contract: Any, path: Path_, rng: Random) -> None:
    target = _get(contract, path)
    name = _pick(["", "x", "__class__", "version", "y" * 1000, "../x"], rng)
    if isinstance(target, dict):
        target[name] = 1
    else:
        target.append(target[0] if target else 1)


def _exchange(contract: Any, path: Path_, rng: Random) -> None:
    """Exchange two values of the same type."""
    kind = type(_get(contract, path))
    other = _pick([found for found in _paths(contract) if type(_get(contract, found)) is kind], rng)
    if path[: len(other)] == other or other[: len(path)] == path:
        return
    first, second = _get(contract, path), _get(contract, other)
    _get(contract, path[:-1])[path[-1]] = second
    _get(contract, other[:-1])[other[-1]] = first


def _retyped(value: Any, rng: Random) -> Any:
    others = [1, 1.5, "text", True, None, [], {}, [value], {"a": value}, str(value)]
    return _pick([other for other in others if type(other) is not type(value)], rng)


def _raw(data: bytes, rng: Random) -> bytes:
    """Insert JSON that Python would not write, in place of some value."""
    marked = _edited(_set(lambda _value, _rng: PLACEHOLDER))(data, rng)
    return marked.replace(json.dumps(PLACEHOLDER).encode(), _pick(RAW, rng).encode(), 1)


def _twice(data: bytes, rng: Random) -> bytes:
    """Repeat a key in its object, the second time with another value."""
    text = data.decode(errors="replace")
    lines = text.splitlines()
    keyed = [index for index, line in enumerate(lines) if '": ' in line and line.rstrip().endswith(",")]
    if not keyed:
        return data
    index = _pick(keyed, rng)
    key = lines[index].split('": ')[0] + '": '
    lines.insert(
        index + int(rng.integers(2)), key + _pick(["1,", '"x",', "null,", lines[index].split('": ', 1)[1]], rng)
    )
    return "\n".join(lines).encode()


def _bits(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for position in rng.integers(0, max(1, len(changed)), int(rng.integers(1, 6))):
        if changed:
            changed[position] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _truncated(data: bytes, rng: Random) -> bytes:
    return data[: int(rng.integers(len(data) + 1))]


def _encoded(data: bytes, rng: Random) -> bytes:
    text = data.decode(errors="replace")
    return _pick(
        [text.encode("utf-16"), b"\xef\xbb\xbf" + data, data.replace(b'"model": "', b'"model": "\xff\xfe\xc3\x28'),
         data + data,
         b"", b"\0" * len(data), b"null", b"[]", b"{" * 100_000, data + b" " * (1 << 20), data.replace(b" ", b"")], rng
    )  # fmt: skip


MUTATIONS: dict[str, Callable[[bytes, Random], bytes]] = {
    "intact": lambda data, _rng: data,
    "removed": _edited(_remove),
    "retyped": _edited(_set(_retyped)),
    "another number": _edited(_set(lambda _value, rng: _pick(NUMBERS, rng)), (int, float)),
    "one more or less": _edited(_set(lambda value, rng: value + _pick([1, -1], rng)), (int, float)),
    "negative": _edited(_set(lambda value, _rng: -value), (int, float)),
    "a fraction": _edited(_set(lambda value, rng: value + _pick([0.5, 1e-9, 1e300], rng)), (int, float)),
    "another string": _edited(_set(lambda _value, rng: _pick(STRINGS, rng)), str),
    "null": _edited(_set(lambda _value, _rng: None)),
    "something more": _edited(_add, (dict, list)),
    "exchanged": _edited(_exchange),
    "raw JSON": _raw,
    "a key twice": _twice,
    "bits": _bits,
    "truncated": _truncated,
    "encoding": _encoded,
    "a long list": _edited(_set(lambda value, _rng: (value or [1]) * 10_000), list),
}
