"""Open a Zarr array or group, in a folder or at an address."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from exactile.errors import SourceError
from exactile.sources.address import as_address, shown_name

MARKERS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
"""A folder with one of these is Zarr."""

_INSTALL = "pip install 'exactile[zarr]'"


def is_zarr(image: str | os.PathLike[str]) -> bool:
    """Return whether ``image`` is a folder with Zarr in it, or an address, at which nothing else is read."""
    return as_address(image) is not None or marker_of(image) is not None


def marker_of(image: str | os.PathLike[str], path: str = "") -> Path | None:
    """Return the file that makes the folder ``path`` of ``image`` Zarr; None if there is none, or at an address."""
    if as_address(image) is not None:
        return None
    return next((file for file in (Path(image) / path / marker for marker in MARKERS) if file.is_file()), None)


def open_node(image: str | os.PathLike[str]) -> Any:
    """Return the ``zarr.Array`` or ``zarr.Group`` at ``image``, for reading.

    Raises SourceError if there is none, it cannot be reached, or the required packages are not installed.
    """
    name = shown_name(image)
    try:
        import zarr
    except ImportError as error:
        raise SourceError(f"{name}: Zarr is read with the zarr package, which is not installed: {_INSTALL}") from error
    try:
        return zarr.open(store=name, mode="r")
    except ImportError as error:
        raise SourceError(f"{name}: a package for such addresses is not installed: {error}; {_INSTALL}") from error
    # Stores and metadata raise errors of many libraries, and ValueError, KeyError, TypeError for damaged documents.
    except Exception as error:
        raise SourceError(f"{name}: cannot be opened as Zarr: {str(error) or type(error).__name__}") from error


def open_member(group: Any, path: str, name: str) -> Any:
    """Return the array or group at ``path`` in ``group``. Raises SourceError if it does not exist."""
    try:
        return group[path]
    except Exception as error:  # as above
        raise SourceError(
            f"{name}: {path!r}, which should be in it, cannot be opened: {str(error) or type(error).__name__}"
        ) from error


def member_names(group: Any) -> list[str]:
    """Return names of the members of ``group``, sorted; none if the store cannot list them, like most web servers."""
    try:
        return sorted(group.keys())
    except Exception:  # noqa: BLE001 - as above
        return []


def is_array(node: Any) -> bool:
    """Return whether a node is an array rather than a group."""
    return hasattr(node, "chunks")
