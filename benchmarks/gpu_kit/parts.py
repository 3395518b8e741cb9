"""The kit's parts: folders of at most 50 MiB, each with a manifest of its files' sizes and hashes.

ONNX Runtime is one tar archive, cut into slices that are compressed one by one, so that each part is unpacked when it
comes. Nothing but the standard library is needed where parts are received.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LIMIT_BYTES = 50 << 20
MANIFEST = "manifest.json"
SLICE_SUFFIX = ".slice.xz"
_BLOCK = 1 << 20


class DamagedPartError(RuntimeError):
    """A part is not what was built; the message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is in a part, and of what kit. ``slices`` is how many slices the archive has in all parts together."""

    kit: Mapping[str, str]
    part: int
    parts: int
    slices: int
    files: Mapping[str, str]
    """Name to SHA-256."""

    def save(self, folder: Path) -> None:
        content = {name: getattr(self, name) for name in ("kit", "part", "parts", "slices", "files")}
        (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest. Raises DamagedPartError."""
        try:
            return cls(**json.loads((folder / MANIFEST).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise DamagedPartError(f"{folder} is no part of the kit: {error}") from error

    def check(self, folder: Path) -> None:
        """Check all files. Raises DamagedPartError if one is missing or has other bytes."""
        for name, digest in self.files.items():
            path = folder / name
            if not path.exists():
                raise DamagedPartError(f"{path} is missing; bring part {self.part} again")
            if sha256(path) != digest:
                raise DamagedPartError(f"{path} has other bytes than when it was built; bring part {self.part} again")


def archive(folder: Path, path: Path) -> int:
    """Write ``folder``'s files to an uncompressed tar file, the same bytes for the same files; its size."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                tar.add(each, arcname=str(each.relative_to(folder)), filter=_without_owner)
    return path.stat().st_size


def slices(path: Path, count: int, folder: Path) -> list[Path]:
    """Cut the file into ``count`` pieces of equal length and compress each; their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    size = path.stat().st_size
    edges = [size * index // count for index in range(count + 1)]

    def compress(index: int) -> Path:
        begin, end = edges[index : index + 2]
        target = folder / f"{index}{SLICE_SUFFIX}"
        with path.open("rb") as source, lzma.open(target, "wb", preset=6) as packed:
            source.seek(begin)
            for block in _blocks(source, end - begin):
                packed.write(block)
        return target

    with ThreadPoolExecutor() as pool:  # lzma works outside the interpreter lock
        return list(pool.map(compress, range(count)))


def unpack_slice(path: Path, folder: Path) -> Path:
    """Decompress one slice to ``folder``; its path there."""
    target = folder / path.name.removesuffix(".xz")
    part = target.with_name(target.name + ".part")
    with lzma.open(path, "rb") as packed, part.open("wb") as out:
        while block := packed.read(_BLOCK):
            out.write(block)
    return part.replace(target)


def join_slices(paths: Iterable[Path], folder: Path) -> None:
    """Extract the archive that was cut into ``paths``, given in order, to ``folder``."""
    with _Joined(list(paths)) as joined, tarfile.open(fileobj=io.BufferedReader(joined, _BLOCK), mode="r|") as tar:
        tar.extractall(folder, filter="data")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(folder: Path) -> int:
    """Return bytes of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class _Joined(io.RawIOBase):
    """Several files, read one after the other."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = [path.open("rb") for path in paths]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while self._files:
            if count := self._files[0].readinto(buffer):
                return count
            self._files.pop(0).close()
        return 0

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def _blocks(source: io.BufferedReader, left: int) -> Iterator[bytes]:
    while left:
        block = source.read(min(_BLOCK, left))
        left -= len(block)
        yield block


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member
