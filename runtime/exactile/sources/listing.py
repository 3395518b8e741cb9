"""From what a user names, files and folders, to a list of images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from exactile.errors import SourceError
from exactile.sources.address import as_address
from exactile.sources.slide_vendor import SLIDE_SUFFIXES
from exactile.sources.zarr_store import is_zarr

# Of a slide in DICOM files, each level is a file or several, so that no file of a folder stands for it.
LISTED_SUFFIXES = (".tif", ".tiff", ".btf", ".svs", ".npy", *(suffix for suffix in SLIDE_SUFFIXES if suffix != ".dcm"))
"""What a file of a folder ends with to be taken for an image, in either case."""


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path | str]:
    """The images that ``paths`` name, in their order, each once: paths, and addresses as strings.

    A file is an image whatever its name; of a folder the files with LISTED_SUFFIXES and the Zarr folders in it are,
    sorted by name, hidden ones left out and folders in it not entered. A Zarr folder is one image. No image is opened.
    Raises SourceError naming all that is not there, or a folder without images.
    """
    named = list(paths)
    missing = [os.fspath(path) for path in named if as_address(path) is None and not Path(path).exists()]
    if missing:
        raise SourceError(f"{', '.join(missing)}: no such file or folder; give paths of images or of folders of images")
    found = [image for path in named for image in _images_of(path)]
    return list(dict.fromkeys(found))


def _images_of(path: str | os.PathLike[str]) -> list[Path | str]:
    address = as_address(path)
    if address is not None:
        return [address]
    if not Path(path).is_dir() or _is_zarr_folder(Path(path)):
        return [Path(path)]
    try:
        images: list[Path | str] = [entry for entry in sorted(Path(path).iterdir()) if _is_listed(entry)]
    except OSError as error:
        raise SourceError(f"{os.fspath(path)}: cannot be listed: {error.strerror}") from error
    if not images:
        raise SourceError(
            f"{os.fspath(path)}: holds no images; files ending in {', '.join(LISTED_SUFFIXES)} and Zarr folders are"
            " taken, folders in it are not entered"
        )
    return images


def _is_listed(entry: Path) -> bool:
    if entry.name.startswith("."):
        return False
    return _is_zarr_folder(entry) if entry.is_dir() else entry.suffix.lower() in LISTED_SUFFIXES


def _is_zarr_folder(folder: Path) -> bool:
    return folder.suffix.lower() == ".zarr" or is_zarr(folder)
