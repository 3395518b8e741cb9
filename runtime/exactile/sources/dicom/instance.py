"""An image of a slide as wsidicom opens it: a DICOM instance, in one file or in the parts of a concatenation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.dicom.frames import FrameForm, frame_form
from exactile.sources.dicom.header import DicomHeader, one_line
from exactile.sources.pixel_size import PixelSize, pixel_size

_INSTALL = "pip install 'exactile[dicom]'"

MOST_TILES = 1 << 24
"""Tiles that the planes of an image may have room for, those that are not stored among them."""

_LEAST_FRAME_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomInstance:
    """An image of ``height`` x ``width`` pixels in tiles, of some optical paths at some focal planes.

    ``place`` is its position on the slide, as in wsidicom, and ``focus`` the number of focal planes that were combined,
    and over which distance; both None if not known. ``parts`` are wsidicom's readers, by their frames.
    """

    files: tuple[Path, ...]
    form: FrameForm
    height: int
    width: int
    pixel_size_um: PixelSize | None
    place: Any
    focus: tuple[int, float] | None
    image_data: Any
    parts: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The file, or the first of several."""
        return str(self.files[0])

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles from top to bottom and from left to right."""
        return -(-self.height // self.form.rows), -(-self.width // self.form.columns)

    def frames(self, path: str, z: float) -> NDArray[np.int64] | None:
        """Return the number of each tile's frame, (rows, columns), -1 if there is none; None if all are missing."""
        tiles = self.image_data.tiles
        if path not in tiles.optical_paths or z not in tiles.focal_planes:
            return None
        if is_sparse(self):
            plane = tiles.planes.get((z, path))
            return None if plane is None else np.ascontiguousarray(plane.plane.T, np.int64)
        from wsidicom.geometry import Point

        first = int(tiles.get_frame_index(Point(0, 0), z, path))
        return first + np.arange(self.grid[0] * self.grid[1], dtype=np.int64).reshape(self.grid)

    @property
    def planes(self) -> list[tuple[str, float]]:
        """Optical paths and focal planes of which there are tiles."""
        tiles = self.image_data.tiles
        pairs = [(path, z) for path in tiles.optical_paths for z in tiles.focal_planes]
        return [(path, z) for path, z in pairs if not is_sparse(self) or (z, path) in tiles.planes]


def is_sparse(instance: DicomInstance) -> bool:
    """Return whether each frame says where it lies, and tiles may be missing."""
    return bool(instance.parts[0].dataset.tile_type.value == "TILED_SPARSE")


def check_installed(name: object) -> None:
    """Raise SourceError with the line that installs wsidicom if it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import wsidicom  # noqa: F401
            from wsidicom.cache import DecodedFrameCache, EncodedFrameCache  # noqa: F401 - not so in all versions
            from wsidicom.file.io import WsiDicomReader, WsiDicomReadIO  # noqa: F401
            from wsidicom.file.wsidicom_file_image_data import WsiDicomFileImageData  # noqa: F401
    except ImportError as error:
        raise SourceError(
            f"{name}: is DICOM, read with wsidicom, which is not installed or has another version: {_INSTALL}"
        ) from error


@contextmanager
def open_instances(headers: Sequence[DicomHeader]) -> Iterator[list[DicomInstance]]:
    """Yield the images in the files of ``headers``, in their order; their files are open as long as the context.

    Raises SourceError naming the file for what is missing, damaged or not read.
    """
    images: dict[str, list[DicomHeader]] = {}
    for header in headers:
        images.setdefault(header.image, []).append(header)
    with ExitStack() as stack:
        yield [_opened(parts, stack) for parts in images.values()]


@contextmanager
def damage_reported(name: object) -> Iterator[None]:
    """Turn whatever wsidicom and pydicom raise into a SourceError naming the file; their warnings say less."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (SourceError, MemoryError):
        raise
    # Both have errors of their own for some damage, and whatever comes of it for other.
    except Exception as error:
        raise SourceError(f"{name}: cannot be read by wsidicom: {one_line(error)}") from error


def _opened(headers: list[DicomHeader], stack: ExitStack) -> DicomInstance:
    forms = [frame_form(header) for header in headers]
    first = headers[0].path
    with damage_reported(first):
        from wsidicom.config import Settings, use_settings

        with use_settings(Settings()):  # whatever the process has made the default: decoders are chosen by them
            instance = _instance(forms[0], [_reader(header, stack) for header in headers])
        _check_parts(instance, headers)
        if any(form != forms[0] for form in forms) or not _same_image(instance):
            raise SourceError(f"{first}: and other parts of the same image differ in size or samples; they are damaged")
    with damage_reported(instance.name):
        _check_tiles(instance)
    return instance


def _reader(header: DicomHeader, stack: ExitStack) -> Any:
    from upath import UPath
    from wsidicom.file.io import WsiDicomReader, WsiDicomReadIO

    stream = stack.enter_context(header.path.open("rb"))
    return WsiDicomReader(WsiDicomReadIO(stream, UPath(header.path)))


def _instance(form: FrameForm, readers: list[Any]) -> DicomInstance:
    from wsidicom.cache import DecodedFrameCache, EncodedFrameCache
    from wsidicom.file.wsidicom_file_image_data import WsiDicomFileImageData

    parts = sorted(readers, key=lambda reader: int(reader.frame_offset))
    dataset = parts[0].dataset
    size, spacing = dataset.image_size, dataset.pixel_spacing
    return DicomInstance(
        files=tuple(Path(str(reader.filepath)) for reader in parts),
        form=form,
        height=int(size.height),
        width=int(size.width),
        pixel_size_um=None if spacing is None else pixel_size(spacing.height * 1000, spacing.width * 1000),
        place=dataset.image_coordinate_system,
        focus=_focus(dataset),
        image_data=WsiDicomFileImageData(parts, DecodedFrameCache(0), EncodedFrameCache(0)),
        parts=tuple(parts),
    )


def _focus(dataset: Any) -> tuple[int, float] | None:
    if not dataset.ext_depth_of_field:
        return None
    return int(dataset.ext_depth_of_field_planes or 0), float(dataset.ext_depth_of_field_plane_distance or 0)


def _same_image(instance: DicomInstance) -> bool:
    first = instance.parts[0].dataset
    tile = (instance.form.rows, instance.form.columns)
    return all(
        (part.dataset.tile_size.height, part.dataset.tile_size.width) == tile
        and (part is instance.parts[0] or first.matches_instance(part.dataset))
        for part in instance.parts
    )


def _check_parts(instance: DicomInstance, headers: list[DicomHeader]) -> None:
    """Raise SourceError if parts of a concatenation are missing, or a file has no room for its frames."""
    total = max(header.parts for header in headers)
    if total and sorted(header.part for header in headers) != list(range(1, total + 1)):
        found = ", ".join(str(header.part) for header in headers)
        raise SourceError(
            f"{instance.name}: is a part of an image in {total} files, of which number {found} are there; "
            "put all of them into one folder"
        )
    expected = 0
    for file, part in zip(instance.files, instance.parts, strict=True):
        if part.frame_offset != expected:
            raise SourceError(f"{file}: begins with frame {part.frame_offset}, but {expected} come before it; a part "
                              "of the image is missing")  # fmt: skip
        if part.frame_count < 1 or part.frame_count * _LEAST_FRAME_BYTES > file.stat().st_size:
            raise SourceError(f"{file}: claims {part.frame_count} frames, which it has no room for; it is damaged")
        expected += part.frame_count


def _check_tiles(instance: DicomInstance) -> None:
    """Raise SourceError when frames are not the tiles of a grid, each once."""
    rows, columns = instance.grid
    frames = sum(part.frame_count for part in instance.parts)
    if not is_sparse(instance):
        paths, planes = len(instance.image_data.optical_paths), len(instance.image_data.focal_planes)
        if rows * columns * paths * planes != frames:
            raise SourceError(
                f"{instance.name}: has {frames} frames for {rows} x {columns} tiles, {paths} optical paths and "
                f"{planes} focal planes; it is damaged, or parts of it are missing"
            )
        return
    positions = [part.dataset.frame_positions for part in instance.parts]
    if rows * columns * _plane_count(positions) > MOST_TILES:
        raise SourceError(f"{instance.name}: has room for {rows} x {columns} tiles, more than {MOST_TILES} in all")
    if sum(len(position.columns) for position in positions) != frames:
        raise SourceError(f"{instance.name}: does not say where each of its {frames} frames lies; it is damaged")
    for position in positions:
        if ((position.columns - 1) % instance.form.columns).any() or ((position.rows - 1) % instance.form.rows).any():
            raise SourceError(
                f"{instance.name}: has tiles that lie anywhere rather than on a grid of {instance.form.rows} x "
                f"{instance.form.columns} pixels, which is not read; store it as TILED_FULL"
            )
    placed = sum(int((plane.plane >= 0).sum()) for plane in instance.image_data.tiles.planes.values())
    if placed != frames:
        raise SourceError(
            f"{instance.name}: has {frames} frames for {placed} places, so that some lie on others, which is not read"
        )


def _plane_count(positions: Sequence[Any]) -> int:
    """Return at least the number of planes that frames at ``positions`` make."""
    count = 0
    for position in positions:
        heights = 1 if position.z_offsets is None else len(np.unique(position.z_offsets))
        paths = position.optical_path_identifiers
        count += heights * (1 if paths is None else len(np.unique(paths)))
    return count
