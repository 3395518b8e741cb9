"""Expand the files and folders that a user names to a list of images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from exactile.contract.file_names import CONTRACT_NAME
from exactile.errors import SourceError
from exactile.sources.address import as_address
from exactile.sources.dicom.files import is_dicom_folder
from exactile.sources.picture.formats import PICTURE_SUFFIXES
from exactile.sources.slide.vendor import SLIDE_SUFFIXES
from exactile.sources.zarr.store import is_zarr

LISTED_SUFFIXES = (".tif", ".tiff", ".btf", ".svs", ".czi", ".npy", ".nd2", ".lif", *PICTURE_SUFFIXES, *SLIDE_SUFFIXES)
"""Suffixes of files in a folder that are treated as images, in either case."""

_WRITTEN_SUFFIXES = (".preview.png", ".overlay.png")
"""Suffixes of pictures that a run writes beside its results, which are not images to process."""

_SLIDES_WITH_PICTURES = (".vms", ".vmu")
"""Slides whose pixels are in JPEG files beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImages:
    """``images``: paths, and addresses as strings, each once. ``passed_over``: other content of folders, counted by
    kind.

    ``subfolders`` are those, within the named folder, that contain images, except for the folder itself.
    """

    images: tuple[Path | str, ...]
    subfolders: dict[Path | str, Path] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)


def find_images(paths: Iterable[str | os.PathLike[str]], *, recursive: bool = False) -> FoundImages:
    """Return the images that ``paths`` name, in their order.

    A file is an image whatever its name; of a folder the files with LISTED_SUFFIXES, the Zarr folders and the folders
    of slides in DICOM files are, sorted by name, hidden ones left out; ``recursive`` enters the folders in it, after
    its files. A Zarr folder is one image, and so is a folder with a DICOM file (``DICM`` at byte 128) of a slide in it,
    and neither other images nor folders: its levels are files, so that no file of it stands for the slide. No image is
    opened. Raises SourceError naming all that do not exist, or a folder without images.
    """
    named = list(paths)
    missing = [os.fspath(path) for path in named if as_address(path) is None and not Path(path).exists()]
    if missing:
        raise SourceError(f"{', '.join(missing)}: no such file or folder; give paths of images or of folders of images")
    passed: Counter[str] = Counter()
    subfolders: dict[Path | str, Path] = {}
    for path in named:
        for image, subfolder in _images_of(path, passed, recursive=recursive):
            subfolders.setdefault(image, subfolder)
    return FoundImages(
        images=tuple(subfolders),
        subfolders={image: subfolder for image, subfolder in subfolders.items() if subfolder != Path()},
        passed_over=dict(sorted(passed.items())),
    )


def is_image_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is a folder, and no image itself."""
    return as_address(path) is None and Path(path).is_dir() and not _is_one_image(Path(path))


def _images_of(path: str | os.PathLike[str], passed: Counter[str], *, recursive: bool) -> list[tuple[Path | str, Path]]:
    """Yield each image, and the folder within ``path`` that contains it."""
    address = as_address(path)
    if address is not None:
        return [(address, Path())]
    folder = Path(path)
    if not is_image_folder(folder):
        return [(folder, Path())]
    if (folder / CONTRACT_NAME).is_file():
        raise SourceError(
            f"{os.fspath(path)}: is a bundle, not an image; the model comes first and the image second: "
            "exactile run MODEL IMAGE -o OUTPUT"
        )
    here: Counter[str] = Counter()
    found: list[tuple[Path | str, Path]] = [
        (image, image.parent.relative_to(folder)) for image in _listed(folder, here, recursive=recursive)
    ]
    if not found:
        inner = "" if recursive else ", folders in it only with --recursive"
        raise SourceError(
            f"{os.fspath(path)}: holds no images{_but(here)}; files ending in {', '.join(LISTED_SUFFIXES)}, Zarr "
            f"folders and folders of a slide in DICOM files are taken{inner}"
        )
    passed.update(here)
    return found


def _listed(folder: Path, passed: Counter[str], *, recursive: bool) -> Iterator[Path]:
    """Yield the images of ``folder``; count skipped files."""
    try:
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"{folder}: cannot be listed: {error.strerror}") from error
    slides = {entry.stem for entry in entries if entry.suffix.lower() in SLIDE_SUFFIXES}
    parts = any(entry.suffix.lower() in _SLIDES_WITH_PICTURES for entry in entries)
    inner: list[Path] = []
    for entry in entries:
        if entry.is_dir() and not _is_one_image(entry):
            inner += [entry] if entry.name not in slides else []  # the folder of an MRXS slide belongs to it
        elif entry.is_dir() or _is_listed(entry.name, parts=parts):
            yield entry
        else:
            passed[_kind(entry)] += 1
    for entry in inner:
        if recursive:
            yield from _listed(entry, passed, recursive=True)
        else:
            passed["folder"] += 1


def _is_listed(name: str, *, parts: bool) -> bool:
    lower = name.lower()
    if lower.endswith(_WRITTEN_SUFFIXES) or (parts and lower.endswith((".jpg", ".jpeg"))):
        return False
    return Path(lower).suffix in LISTED_SUFFIXES


def _kind(entry: Path) -> str:
    written = next((suffix for suffix in _WRITTEN_SUFFIXES if entry.name.lower().endswith(suffix)), None)
    return written or entry.suffix.lower() or "file without a suffix"


def describe_passed_over(passed: dict[str, int]) -> str:
    """Return ``2 folders (--recursive enters them), 1 .png, 3 .txt``"""
    folders = passed.get("folder", 0)
    told = [f"{folders} folder{'s' if folders > 1 else ''} (--recursive enters them)"] if folders else []
    return ", ".join(told + [f"{count} {kind}" for kind, count in passed.items() if kind != "folder"])


def _but(passed: Counter[str]) -> str:
    return f" but {describe_passed_over(dict(sorted(passed.items())))}" if passed else ""


def _is_one_image(folder: Path) -> bool:
    return folder.suffix.lower() == ".zarr" or is_zarr(folder) or is_dicom_folder(folder, LISTED_SUFFIXES)
