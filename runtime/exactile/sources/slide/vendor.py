"""Recognise whole slides that OpenSlide reads, rather than this package itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from exactile.errors import SourceError

SLIDE_SUFFIXES = (".mrxs", ".ndpi", ".scn", ".bif", ".vms", ".vmu", ".svslide")
"""Suffixes of slides that OpenSlide reads; a file is recognised by content if possible."""

_APERIO_YCBCR = 33003

_INSTALL = "pip install 'exactile[slides]'"


def load_openslide(name: str) -> Any:
    """Return the openslide package. Raises SourceError with the line that installs it."""
    try:
        import openslide
    # The package raises OSError or ModuleNotFoundError when the C library is not found.
    except (ImportError, OSError) as error:
        raise SourceError(
            f"{name}: is a whole slide, read with OpenSlide, which is not installed: {_INSTALL}"
        ) from error
    return openslide


def is_slide_in_tiff(path: str | os.PathLike[str]) -> bool:
    """Return whether the tiles of a TIFF file are not the image, which OpenSlide assembles from them.

    Those of Hamamatsu (NDPI), Leica (SCN), Philips, Ventana (BIF) and Trestle have to be assembled; Aperio's (SVS) are
    the image, except that its older JPEG 2000 holds undeclared YCbCr. A file that cannot be parsed is not one.
    """
    import tifffile

    from exactile.sources.tifffile_log import structure_errors

    try:
        with structure_errors(os.fspath(path)), tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            known = page.is_ndpi or page.is_scn or page.is_philips or page.is_bif
            known = known or (page.is_svs and page.compression == _APERIO_YCBCR)
            return bool(known or str(page.software).startswith("MedScan"))
    except SourceError:  # the reader of the file reports what is wrong with it
        return False


def is_named_as_slide(path: str | os.PathLike[str]) -> bool:
    """Return whether a file's name says that it is a slide."""
    return Path(path).suffix.lower() in SLIDE_SUFFIXES


def is_other_slide(path: str | os.PathLike[str]) -> bool:
    """Return whether a file that is not TIFF is a slide (MRXS, VMS, ...), or looks like one by its name.

    Raises SourceError if it looks like one and OpenSlide is not installed.
    """
    named = is_named_as_slide(path)
    try:
        openslide = load_openslide(os.fspath(path))
    except SourceError:
        if named:
            raise
        return False
    try:
        return named or openslide.OpenSlide.detect_format(path) is not None
    except openslide.OpenSlideError:
        return True  # recognised, but damaged
