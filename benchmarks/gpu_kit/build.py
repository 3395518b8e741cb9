"""Write ``build/gpu-kit``: the parts, and how to use them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu_kit import wheels
from benchmarks.gpu_kit.parts import LIMIT_BYTES, Manifest, archive, sha256, size_of, slices
from benchmarks.harness.worker import ROOT

FOLDER = ROOT / "build" / "gpu-kit"
RESERVED_BYTES = 1 << 16
"""Of a part, for its manifest."""
SLICES = 24
"""Of ONNX Runtime. They compress very differently, so there are more than parts."""


def build(folder: Path = FOLDER) -> None:
    """Download, build, pack. What was there is replaced when all of it is ready.

    Raises MissingToolError, and RuntimeError where a part is too large.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-kit-", dir=folder.parent) as scratch:
        ready = Path(scratch, "kit")
        kit = wheels.contents()
        contents = list(_contents(Path(scratch)))
        for number, files in enumerate(contents, 1):
            _write_part(ready / f"part-{number}", files, kit, number, len(contents))
        shutil.copyfile(Path(__file__).with_name("README.md"), ready / "README.md")
        if folder.exists():
            shutil.rmtree(folder)
        ready.replace(folder)
    for part in sorted(folder.glob("part-*")):
        print(f"{part.relative_to(ROOT) if part.is_relative_to(ROOT) else part}  {size_of(part) / 2**20:.1f} MiB")


def _contents(scratch: Path) -> Iterator[list[Path]]:
    """Yield the files of each part. The first has all that the first step needs."""
    print("Wheels ...", flush=True)
    small = wheels.small_wheels(scratch / "small")
    pycuda = wheels.build_pycuda(scratch / "pycuda")
    yield [*small, *pycuda]
    print("ONNX Runtime with CUDA: downloading ...", flush=True)
    tar = scratch / "onnxruntime.tar"
    archive(wheels.unpacked_onnx_runtime(scratch / "runtime"), tar)
    print("ONNX Runtime with CUDA: compressing (minutes) ...", flush=True)
    yield from packed(slices(tar, SLICES, scratch / "slices"), LIMIT_BYTES - RESERVED_BYTES)


def packed(files: list[Path], limit_bytes: int) -> list[list[Path]]:
    """Pack into as few groups as first fit by decreasing size finds, none larger than the limit."""
    groups: list[list[Path]] = []
    for path in sorted(files, key=lambda path: path.stat().st_size, reverse=True):
        size = path.stat().st_size
        fitting = (group for group in groups if sum(each.stat().st_size for each in group) + size <= limit_bytes)
        if (group := next(fitting, None)) is None:
            groups.append([path])
        else:
            group.append(path)
    return groups


def _write_part(folder: Path, files: list[Path], kit: dict[str, str], number: int, parts: int) -> None:
    folder.mkdir(parents=True)
    for path in files:
        shutil.move(path, folder / path.name)
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    Manifest(kit=kit, part=number, parts=parts, slices=SLICES, files=hashes).save(folder)
    if size_of(folder) > LIMIT_BYTES:
        raise RuntimeError(f"part {number} has {size_of(folder) / 2**20:.1f} MiB, more than {LIMIT_BYTES >> 20}")
