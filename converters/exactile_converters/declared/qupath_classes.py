"""The classes of a pixel classifier of QuPath, by the network's channels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exactile.errors import ModelError


def classes_and_colors(metadata: Mapping[str, Any], path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names, and colours as #rrggbb where all have one. Raises ModelError where channels are missing."""
    labels = metadata.get("classificationLabels")
    if isinstance(labels, Mapping) and labels:
        numbered = {int(number): one for number, one in labels.items() if str(number).isdigit()}
        if sorted(numbered) != list(range(len(labels))):
            raise ModelError(f"{path}: its classes are numbered {', '.join(map(str, labels))}; 0, 1, ... are expected")
        found = [numbered[number] for number in range(len(labels))]
    else:
        found = list(metadata.get("outputChannels") or ())
    colors = tuple(_color(one) for one in found)
    return tuple(_name(one, place) for place, one in enumerate(found)), colors if all(colors) else ()


def _name(one: Any, place: int) -> str:
    """Return the name: QuPath writes an object with a name, or several of nested classes; none if unclassified."""
    if isinstance(one, Mapping):
        names = one.get("names")
        one = ": ".join(map(str, names)) if isinstance(names, list) else one.get("name")
    return one if isinstance(one, str) and one else f"class {place}"


def _color(one: Any) -> str:
    """Return the colour from [red, green, blue], or from one number with red in its third byte."""
    found = one.get("color", one.get("colorRGB")) if isinstance(one, Mapping) else None
    if type(found) is int:
        return f"#{found & 0xFFFFFF:06x}"
    parts = found[:3] if isinstance(found, list) else []
    fitting = len(parts) == 3 and all(type(part) is int and 0 <= part <= 255 for part in parts)
    return "#" + "".join(f"{part:02x}" for part in parts) if fitting else ""
