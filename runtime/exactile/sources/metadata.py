"""Metadata of an image besides its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from exactile.georeference import Georeference


@dataclass(frozen=True, slots=True, kw_only=True)
class Alpha:
    """Channel ``channel`` is marked as opacity in the file; ``premultiplied`` colours were multiplied by it."""

    channel: int
    premultiplied: bool = False
    left_out: bool = False

    def __post_init__(self) -> None:
        if self.channel < 0:
            raise ValueError(f"a channel's number is not negative, got {self.channel}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """What is known of an image; all of it may be missing.

    ``orientation`` is TIFF's tag: how viewers turn the image; it is read as stored. ``nodata`` is the value of pixels
    without data in every channel, ``mask_page`` the number of the TIFF page that is 0 where there is no data.
    ``instances`` are the DICOM files that it was read from. ``notes`` are sentences for people: what was done to its
    samples, or left undone.
    """

    alpha: Alpha | None = None
    georeference: Georeference | None = None
    orientation: int = 1
    nodata: float | None = None
    mask_page: int | None = None
    instances: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """Notes for people on how the image was read."""
        alpha = self.alpha
        if alpha is None or not alpha.left_out:
            return self.notes
        said = f"the alpha channel ({alpha.channel}) was left out"
        if alpha.premultiplied:
            said += "; colours were multiplied by it when they were stored, and are as stored"
        return (*self.notes, said)


NO_METADATA = ImageMetadata()


@runtime_checkable
class HasMetadata(Protocol):
    """A source with metadata."""

    @property
    def metadata(self) -> ImageMetadata: ...


def metadata_of(source: object) -> ImageMetadata:
    """Return the metadata of ``source``; empty if it has none."""
    return source.metadata if isinstance(source, HasMetadata) else NO_METADATA


def nodata_of(source: object, given: float | None = None) -> float | None:
    """Return the value of pixels without data: ``given``, or the file's."""
    return metadata_of(source).nodata if given is None else given
