"""Turn the pages of a TIFF file into a checked layout of chunks. The only importer of tifffile here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from exactile.errors import SourceError
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.reader import MOST_CHUNK_BYTES
from exactile.sources.image_choice import ImageChoice
from exactile.sources.jpeg_markers import check_jpeg
from exactile.sources.positional_file import DamagedDataError, PositionalFile
from exactile.sources.sample_types import native_sample_type
from exactile.sources.tiff.choice import ChosenPages, choose_pages
from exactile.sources.tiff.layout import ChunkPlane, Decode, TiffLayout
from exactile.sources.tiff.metadata import read_metadata
from exactile.sources.tiff.palette import PALETTE, colored, palette_of
from exactile.sources.tiff.scratch import scratch_bytes
from exactile.sources.tifffile_log import structure_errors

_JPEG = 7
_JPEG_FAMILY = {6, 7, 34892, 33007}  # those whose decoder takes tables from the page


def read_layout(file: PositionalFile, choice: ImageChoice) -> TiffLayout:
    """Read the structure of a TIFF file; no pixel is read.

    Raises SourceError if it is damaged, truncated or of an unsupported kind, OptionError if ``choice`` is an image that
    is not in the file.
    """
    with structure_errors(file.name), tifffile.TiffFile(file.stream, name=file.name) as tiff:
        chosen = choose_pages(tiff, choice, file.name)
        layout = _lay_out(chosen, file.name)
    _check_within_file(layout, file)
    return layout


def _lay_out(chosen: ChosenPages, name: str) -> TiffLayout:
    keyframe = chosen.keyframe
    native = native_sample_type(np.dtype(keyframe.dtype or "V1"), name)
    _, _, height, width, samples = keyframe.shaped
    raw = _is_raw(keyframe, native)
    planes = _contiguous_planes(chosen) if raw else None
    if planes is not None:
        chunk_rows, chunk_columns = height, width
    else:
        if chosen.plane_offsets:
            raise SourceError(f"{name}: channels without pages of their own must be stored as plain samples")
        chunk_rows, chunk_columns = _chunk_shape(keyframe, name)
    grid = ChunkGrid(height=height, width=width, chunk_rows=chunk_rows, chunk_columns=chunk_columns)
    if planes is None:
        planes = [
            plane for number, page in enumerate(chosen.pages) for plane in _chunked_planes(page, number, grid, name)
        ]
        raw = raw and all(_holds_whole_chunks(plane, grid, samples * native.itemsize) for plane in planes)
    if keyframe.photometric == PALETTE:
        colors = palette_of(chosen, name)
        planes, samples, native = [colored(plane, colors, name) for plane in planes], 3, colors.dtype
    if not raw:
        _check_chunk_bytes(planes, grid, samples * native.itemsize, name)
    return TiffLayout(
        grid=grid,
        planes=tuple(planes),
        samples=samples,
        stored_dtype=native.newbyteorder(keyframe.parent.byteorder) if raw else native,
        raw=raw,
        fill=keyframe.nodata,
        scratch_bytes=0 if raw else scratch_bytes(keyframe, chunk_rows * chunk_columns, samples),
        level=chosen.level,
        pixel_size_um=chosen.pixel_size_um,
        metadata=read_metadata(chosen),
    )


def _is_raw(keyframe: Any, native: np.dtype[Any]) -> bool:
    """Return whether the chunks are rows of plain samples."""
    return bool(
        keyframe.compression == 1
        and keyframe.photometric != PALETTE
        and keyframe.predictor == 1
        and keyframe.fillorder == 1
        and keyframe.bitspersample == native.itemsize * 8
        and not keyframe.is_subsampled
    )


def _chunk_shape(keyframe: Any, name: str) -> tuple[int, int]:
    rows, columns = (
        (keyframe.tilelength, keyframe.tilewidth) if keyframe.is_tiled else (keyframe.rowsperstrip, keyframe.imagewidth)
    )
    if rows < 1 or columns < 1:
        raise SourceError(f"{name}: has a damaged structure: chunks of {rows} x {columns} pixels")
    return rows, columns


def _contiguous_planes(chosen: ChosenPages) -> list[ChunkPlane] | None:
    """Return one chunk a plane, if all rows of a plane follow each other in the file; None if they do not."""
    keyframe = chosen.keyframe
    offsets = list(chosen.plane_offsets)
    for page in () if offsets else chosen.pages:
        separate = keyframe.shaped[0]
        if not keyframe.is_contiguous or not _follow_each_other(page, keyframe.nbytes):
            return None
        offsets += [page.dataoffsets[0] + index * (keyframe.nbytes // separate) for index in range(separate)]
    size_bytes = math.prod(keyframe.shaped[1:]) * keyframe.dtype.itemsize
    return [
        ChunkPlane(
            number=number,
            offsets=np.array([offset], np.int64),
            sizes_bytes=np.array([size_bytes], np.int64),
            first_segment=0,
            decode=_never_decoded,
        )
        for number, offset in enumerate(offsets)
    ]


def _follow_each_other(page: Any, page_bytes: int) -> bool:
    """Return whether pages follow each other, checked for every page: tifffile assumes it from the first."""
    offsets = np.asarray(page.dataoffsets, np.int64)
    if len(offsets) == 0 or offsets[0] <= 0:
        return False
    if len(offsets) == 1:  # one strip: its byte count is often wrong, and tifffile ignores it, too
        return True
    sizes = np.asarray(page.databytecounts, np.int64)
    return (
        len(sizes) == len(offsets) and int(sizes.sum()) == page_bytes and bool((np.diff(offsets) == sizes[:-1]).all())
    )


def _chunked_planes(page: Any, page_number: int, grid: ChunkGrid, name: str) -> list[ChunkPlane]:
    """Return the planes of one page, from its table of chunks."""
    separate = page.keyframe.shaped[0]
    chunks = grid.rows * grid.columns
    needed = separate * chunks
    if min(len(page.dataoffsets), len(page.databytecounts)) < needed:
        raise SourceError(
            f"{name}: has a damaged structure: {needed} chunks are needed, but it lists"
            f" {len(page.dataoffsets)} offsets and {len(page.databytecounts)} sizes"
        )
    offsets = _whole_numbers(page.dataoffsets[:needed], name)
    sizes = _whole_numbers(page.databytecounts[:needed], name)
    if offsets.min(initial=0) < 0 or sizes.min(initial=0) < 0:
        raise SourceError(f"{name}: has a damaged structure: the table of chunks holds impossible offsets or sizes")
    # Writers mark an empty chunk by a size or an offset of 0.
    sizes = np.where(offsets > 0, sizes, 0)
    decode = _decoder(page)
    return [
        ChunkPlane(
            number=page_number * separate + index,
            offsets=offsets[index * chunks : (index + 1) * chunks],
            sizes_bytes=sizes[index * chunks : (index + 1) * chunks],
            first_segment=index * chunks,
            decode=decode,
        )
        for index in range(separate)
    ]


def _whole_numbers(values: Any, name: str) -> NDArray[np.int64]:
    """Return offsets or sizes, (n,) int64. A damaged tag makes them fractions, or more than 64 bits."""
    found = np.asarray(values)
    if found.dtype.kind not in "iu" or found.max(initial=0) > np.iinfo(np.int64).max:
        raise SourceError(f"{name}: has a damaged structure: the table of chunks holds impossible offsets or sizes")
    return found.astype(np.int64)


def _decoder(page: Any) -> Decode:
    """Return the page's decoder, created here because only its use is thread-safe, not its creation.

    Raises what tifffile raises for unsupported compressions, predictors and bit depths.
    """
    keyframe = page.keyframe
    keyframe.decode(None, 0)
    decode = keyframe.decode
    most_samples = math.prod(keyframe.chunks)
    tables: dict[str, Any] = {}
    if keyframe.compression in _JPEG_FAMILY:
        tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
    # Hamamatsu files cut one JPEG stream into chunks, which have no beginning and end of their own.
    complete_jpeg = keyframe.compression == _JPEG and keyframe.jpegheader is None

    def decode_chunk(data: bytes, index: int) -> NDArray[Any]:
        if complete_jpeg:
            check_jpeg(data, most_samples)
        pixels, _, _ = decode(data, index, **tables)
        if pixels is None:
            raise DamagedDataError("the decoder returned nothing")
        chunk: NDArray[Any] = np.asarray(pixels)[0]
        return chunk

    return decode_chunk


def _check_chunk_bytes(planes: list[ChunkPlane], grid: ChunkGrid, pixel_bytes: int, name: str) -> None:
    """Refuse chunks too large to be decoded as a whole, and stored sizes that cannot be those of such chunks."""
    chunk_bytes = grid.chunk_rows * grid.chunk_columns * pixel_bytes
    if chunk_bytes > MOST_CHUNK_BYTES:
        raise SourceError(
            f"{name}: its chunks of {grid.chunk_rows} x {grid.chunk_columns} pixels decode to {chunk_bytes} bytes each,"
            f" but at most {MOST_CHUNK_BYTES} are taken; store it in tiles"
        )
    largest = max(int(plane.sizes_bytes.max(initial=0)) for plane in planes)
    if largest > 2 * MOST_CHUNK_BYTES:
        raise SourceError(f"{name}: has a damaged structure: a chunk of {chunk_bytes} bytes is stored in {largest}")


def _never_decoded(data: bytes, index: int) -> NDArray[Any]:
    raise AssertionError(f"chunk {index} ({len(data)} bytes) is plain samples")


def _holds_whole_chunks(plane: ChunkPlane, grid: ChunkGrid, pixel_bytes: int) -> bool:
    """Return whether every existing chunk is whole, or ends exactly with the image's last row, at full chunk width.

    Some writers cut the tiles at the right and lower edge; tifffile's decoder recognises those. Any other size usually
    means that the samples are not plain, whatever the header says.
    """
    rows = np.minimum(grid.chunk_rows, grid.height - np.arange(grid.rows) * grid.chunk_rows)
    needed = np.repeat(rows * grid.chunk_columns * pixel_bytes, grid.columns)
    whole = grid.chunk_rows * grid.chunk_columns * pixel_bytes
    sizes = plane.sizes_bytes
    return bool(((sizes == 0) | (sizes == needed) | (sizes >= whole)).all())


def _check_within_file(layout: TiffLayout, file: PositionalFile) -> None:
    """Raise SourceError for a truncated file now, rather than hours into a run."""
    for number, plane in enumerate(layout.planes):
        beyond = np.flatnonzero((plane.sizes_bytes > 0) & (plane.offsets > file.size_bytes - plane.sizes_bytes))
        if len(beyond):
            row, column = divmod(int(beyond[0]), layout.grid.columns)
            end = int(plane.offsets[beyond[0]] + plane.sizes_bytes[beyond[0]])
            raise SourceError(
                f"{file.name}: is truncated: {layout.describe_chunk(number, row, column)} ends at byte {end}, but the"
                f" file at {file.size_bytes}; {len(beyond)} of {len(plane.offsets)} chunks are missing; copy it again"
            )
