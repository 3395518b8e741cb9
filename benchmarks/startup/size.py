"""How large what a distribution needs is, counted from the files of those that are installed. Runs in any Python here.

A request ``{"names": ["monai", "onnxruntime"], "extras": {"exactile": ["cpu"]}}`` gives for each name the bytes of its
distribution and all that it requires, each counted once.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
WHEEL = (ROOT / "runtime" / "exactile", ROOT / "converters" / "exactile_converters")
"""What a wheel of exactile holds; an editable installation has no files of its own."""


def closure(name: str, extras: tuple[str, ...] = ()) -> dict[str, int]:
    """Return bytes of ``name`` with ``extras`` and of everything that it requires, by distribution."""
    sizes: dict[str, int] = {}
    waiting = [(name, extras)]
    seen = set()
    while waiting:
        wanted, asked = waiting.pop()
        key = wanted.lower().replace("_", "-"), asked
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(wanted)
        except PackageNotFoundError:
            continue  # not needed here: a marker that packaging judges otherwise, or built in
        sizes[key[0]] = _bytes_of(found)
        for text in found.requires or ():
            requirement = Requirement(text)
            if _wanted(requirement, asked):
                waiting.append((requirement.name, tuple(sorted(requirement.extras))))
    return sizes


def _wanted(requirement: Requirement, extras: tuple[str, ...]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _bytes_of(found: Distribution) -> int:
    if found.metadata["Name"] == "exactile":
        files = [file for folder in WHEEL for file in folder.rglob("*") if file.is_file()]
    else:
        files = [Path(str(file.locate())) for file in found.files or ()]
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file())


def main() -> None:
    request = json.load(sys.stdin)
    answer = {}
    for names in request["groups"]:
        sizes: dict[str, int] = {}
        for name in names:
            base, _, extras = name.partition("[")
            sizes |= closure(base, tuple(filter(None, extras.rstrip("]").split(","))))
        answer["+".join(names)] = {"bytes": sum(sizes.values()), "distributions": len(sizes)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
