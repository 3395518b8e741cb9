"""Find the deployed form of an ONNX file without reading a graph: the converter is not even imported.

A key is the SHA-256 of all that a deployed model depends on: the file and those beside it that hold its weights, byte
by byte, its name, the code of exactile, its packages, and every option.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from exactile.cache.model_file import Storable
from exactile.cache.models import ModelCache
from exactile.cache.rules import file_digest, rules_digest
from exactile.contract import DeployedModel
from exactile.file_kinds import not_a_model
from exactile.request.converter import load_converter

MOST_SIZES = 16
"""Models for images of one size that a run keeps: a folder of images of many sizes leaves room for others."""


@dataclass(slots=True)
class KeptModels:
    """What ``cache`` holds of the ONNX file ``path``, deployed with ``options``, which are identified by their text.

    Empty if there is no cache, or the file cannot be read.
    """

    path: Path
    options: str
    cache: ModelCache | None
    _files: str = ""
    _sizes: int = 0

    @classmethod
    def of(cls, path: Path, options: str, cache: ModelCache | None) -> Self:
        """Look up the file. Raises ModelError if the converter is needed to find the files with weights, and is
        missing.
        """
        kept = cls(path, options, cache)
        kept._files = kept._digest()
        return kept

    def nature(self) -> str | None:
        """Return the kind of network that was stored."""
        found = self._kept("nature")
        return found if isinstance(found, str) else None

    def keep_nature(self, nature: str) -> None:
        self._keep(nature, "nature")

    def model(self, kind: str, dtype: str, size: tuple[int, int] | None = None) -> DeployedModel | None:
        """Return the stored model of a ``kind`` for samples of ``dtype`` and images of ``size``, or any."""
        found = self._kept(kind, dtype, size)
        return found if isinstance(found, DeployedModel) else None

    def refused(self, kind: str, dtype: str, size: tuple[int, int]) -> bool:
        """Return whether it is stored that there is no such model."""
        return isinstance(self._kept(kind, dtype, size), str)

    def keep(self, model: Storable, kind: str, dtype: str, size: tuple[int, int] | None = None) -> bool:
        """Store ``model``, or why there is none."""
        self._sizes += size is not None
        return (size is None or self._sizes <= MOST_SIZES) and self._keep(model, kind, dtype, size)

    def check_same(self) -> None:
        """Check after the file was read that it is still the same; otherwise nothing of it is stored."""
        if self._files and self._digest() != self._files:
            self._files = ""

    def _kept(self, *what: object) -> Storable | None:
        return self.cache.kept(self._key(what)) if self.cache is not None and self._files else None

    def _keep(self, value: Storable, *what: object) -> bool:
        return self.cache is not None and self._files != "" and self.cache.keep(self._key(what), value)

    def _key(self, what: tuple[object, ...]) -> str:
        return _digest_of(rules_digest(), self._files, self.path.name, self.options, *what)

    def _digest(self) -> str:
        """Return the digest of the file and all files with its weights; empty if nothing of it can be stored."""
        if self.cache is None or not _keepable(self.cache, self.path):
            return ""
        try:
            model = file_digest(self.path)
            weights = _weight_files(self.path, model, self.cache)
            if not _keepable(self.cache, self.path, *weights):
                return ""
            return _digest_of(model, *map(file_digest, weights))
        except OSError:
            return ""


def external_files(model: Path, cache: ModelCache | None) -> tuple[Path, ...]:
    """Return the files that hold weights of the ONNX file ``model``; ask the converter if ``cache`` does not know.

    None for a file that cannot be read. Raises ModelError if the converter is missing.
    """
    if cache is None or not _keepable(cache, model):
        return _looked_up(model)
    try:
        digest = file_digest(model)
    except OSError:
        return _looked_up(model)
    return _weight_files(model, digest, cache)


def _weight_files(model: Path, digest: str, cache: ModelCache) -> tuple[Path, ...]:
    """Return the same of a file whose SHA-256 is known."""
    key = _digest_of(rules_digest(), "external files", digest)
    known = cache.kept(key)
    if isinstance(known, str):
        return tuple(model.parent / name for name in json.loads(known))
    found = _looked_up(model)
    cache.keep(key, json.dumps([os.path.relpath(path, model.parent) for path in found]))
    return found


def _looked_up(model: Path) -> tuple[Path, ...]:
    found: tuple[Path, ...] = load_converter().external_files(model)
    return found


def _keepable(cache: ModelCache, model: Path, *weights: Path) -> bool:
    """Return whether the files are such, and not larger together than what is kept of a model."""
    try:
        files = (model, *weights)
        regular = all(path.is_file() for path in files) and not_a_model(model) is None
        return regular and sum(path.stat().st_size for path in files) <= cache.largest_bytes
    except (OSError, ValueError):  # names with a null byte
        return False


def _digest_of(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(repr, parts)).encode()).hexdigest()
