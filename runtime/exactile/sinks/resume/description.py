"""Describe a run as plain data, and compare it with an unfinished one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exactile.errors import ResumeError
from exactile.sinks.protocol import ResultSpec


def described_output(spec: ResultSpec) -> dict[str, Any]:
    """Return what a result is, apart from how its sink stores it."""
    return {
        "shape": list(spec.shape),
        "dtype": spec.dtype,
        "pixel_size_um": None if spec.pixel_size_um is None else list(spec.pixel_size_um),
        "labels": [[label.value, label.name, *label.rgb] for label in spec.labels],
        "georeference": None if spec.georeference is None else spec.georeference.as_plain(),
        "orientation": spec.orientation,
    }


def check_same(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that the unfinished run of ``path`` is the same run. Raises ResumeError."""
    found = differences(then, now)
    if found:
        raise ResumeError(
            f"{path}: the unfinished run is another one: {'; '.join(found)}. "
            "What to do: run it as before, or start again with --overwrite, without --resume"
        )


def differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return where two descriptions of runs differ, for people: ``key: was A, is B``. Keys of only one side differ,
    too.
    """
    found: list[str] = []
    for key in sorted({*then, *now}):
        a, b = then.get(key), now.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: was {_short(a)}, is {_short(b)}")
    return found


def _short(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
