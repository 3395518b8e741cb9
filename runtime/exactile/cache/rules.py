"""Identify what results depend on besides the network: code and packages."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ENGINES = ("onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy")
"""Packages whose releases decide what is claimed and what is computed."""

PACKAGES = ("exactile_converters", "exactile")


@cache
def rules_digest() -> str:
    """Return the SHA-256 of the code that claims and runs, and of the versions of its dependencies; without the
    converter.
    """
    digest = hashlib.sha256("".join(f"{name}={_version(name)} " for name in ENGINES).encode())
    for package in PACKAGES:
        found = find_spec(package)
        if found is None or found.origin is None:
            continue  # a deployment without the converter
        folder = Path(found.origin).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _version(name: str) -> str:
    """Return the version of a package; of onnxruntime by the module, because its packages have several names."""
    from importlib.metadata import PackageNotFoundError, version

    with suppress(ImportError, AttributeError):
        if name == "onnxruntime":
            import onnxruntime

            return str(onnxruntime.__version__)
    with suppress(PackageNotFoundError):
        return version(name)
    return "unknown"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
