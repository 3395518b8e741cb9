"""Damage that any file may suffer: bits, disks and transfers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fuzz.recipe import Recipe

Random = np.random.Generator
Mutation = Callable[[bytearray, Random], bytearray]


def damaged(base: bytes, recipe: Recipe, mutations: Mapping[str, Mutation]) -> bytes:
    """Return ``base`` after the mutations of ``recipe``; one that finds nothing to aim at changes nothing."""
    data, rng = bytearray(base), recipe.random()
    for mutation in recipe.mutations:
        try:
            data = mutations[mutation](data, rng)
        except (struct.error, ValueError, IndexError):  # an earlier mutation left nothing to aim at
            continue
    return bytes(data)


def flip(data: bytearray, rng: Random, start: int, stop: int) -> bytearray:
    """Flip a few bits within ``start`` to ``stop``."""
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(start, min(stop, len(data))))] ^= 1 << int(rng.integers(8))
    return data


def byte(data: bytearray, rng: Random) -> bytearray:
    """Replace one byte by another, often one at an edge."""
    data[int(rng.integers(len(data)))] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
    return data


def truncated(data: bytearray, rng: Random) -> bytearray:
    return data[: int(rng.integers(len(data) + 1))]


def cut(data: bytearray, rng: Random, most: int = 100) -> bytearray:
    """Drop up to ``most`` bytes."""
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, most))]
    return data


def inserted(data: bytearray, rng: Random, most: int = 100) -> bytearray:
    """Insert up to ``most`` bytes."""
    start = int(rng.integers(len(data)))
    data[start:start] = rng.bytes(int(rng.integers(1, most)))
    return data


def overwritten(data: bytearray, rng: Random, lengths: Sequence[int] = (16, 64, 512)) -> bytearray:
    """Overwrite a sector with zeros, or bytes of something else, as failing disks leave it."""
    start, length = int(rng.integers(len(data))), int(rng.choice(lengths))
    end = min(len(data), start + length)
    data[start:end] = bytes(end - start) if rng.random() < 0.5 else rng.bytes(end - start)
    return data


def appended(data: bytearray, rng: Random) -> bytearray:
    return data + rng.bytes(int(rng.integers(1, 3000)))


def joined(names: Sequence[str], base: Callable[[str], bytes]) -> Mutation:
    """Join the beginning of the file and the end of another one of ``names``, which ``base`` makes."""

    def mutate(data: bytearray, rng: Random) -> bytearray:
        other = base(names[int(rng.integers(len(names)))])
        at = int(rng.integers(min(len(data), len(other))))
        return data[:at] + other[at:]

    return mutate
