"""The result as OME-Zarr 0.5: labels under ``labels/NAME``, maps as an image with channels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from exactile.errors import OptionError, SinkError
from exactile.sinks.failures import os_errors_as_sink_errors
from exactile.sinks.files.part_folder import PartFolder, check_folder_writable
from exactile.sinks.protocol import ResultSpec
from exactile.sinks.tiled.sink import TiledSink
from exactile.sinks.tiles.grid import TileGrid
from exactile.sinks.zarr.ome import VERSION, image_label, multiscales
from exactile.sinks.zarr.store import ChunkEncoder, ZarrStore

DEFAULT_LABEL = "segmentation"
COMPRESSIONS = ("zstd", "zlib", "none")


class ZarrSink(TiledSink[PartFolder]):
    """Writes into ``NAME.zarr``: a new container, or an existing one that holds the image.

    ``(H, W)`` becomes the label image ``labels/LABEL``: multiscales with nearest levels, ``image-label`` with the names
    and colours of its classes. The path ``NAME.zarr/labels/LABEL`` means the same. ``(C, H, W)`` becomes a separate
    image, in a new container.

    compression: ``zstd`` (default), ``zlib`` (in Blosc) or ``none``. tile, workers, pyramid, resumable: as for every
    TiledSink; tiles are Zarr's chunks, and several workers write them at once.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        label: str | None = None,
        compression: str = "zstd",
        tile: int | None = None,
        workers: int | None = None,
        pyramid: bool | None = None,
        overwrite: bool = False,
        resumable: bool = False,
    ) -> None:
        if compression not in COMPRESSIONS:
            raise OptionError(
                f"there is no Zarr compression {compression!r}. What to do: use {', '.join(COMPRESSIONS)}"
            )
        self._compression = compression
        self._container, self._label = _container_and_label(Path(path), label)
        self._in_image = is_zarr_group(self._container)
        _check_container(self._container)
        target = self._container / "labels" / self._label if self._in_image else self._container
        super().__init__(
            target, tile=tile, workers=workers, pyramid=pyramid is not False, overwrite=overwrite, resumable=resumable
        )

    def _make_part(self, spec: ResultSpec, *, kept_name: bool, resumed: bool) -> PartFolder:
        if spec.channels and self._in_image:
            raise SinkError(
                f"{self._container} exists already, and maps of several channels need a new container. "
                "What to do: choose another name"
            )
        return PartFolder(self.path, overwrite=self._overwrite, kept_name=kept_name, resumed=resumed)

    def _check_place(self, *, overwrite: bool = True) -> None:
        if self._in_image:
            with os_errors_as_sink_errors(self.path):
                self.path.parent.mkdir(exist_ok=True)
        check_folder_writable(self.path, overwrite=overwrite)

    def _make_store(self, part: PartFolder, spec: ResultSpec, grids: Sequence[TileGrid], *, resumed: bool) -> ZarrStore:
        import zarr

        nested = not spec.channels and not self._in_image
        folder = part.part_path / "labels" / self._label if nested else part.part_path
        if nested:
            _write_group(part.part_path, {"ome": {"version": VERSION}})
            _write_group(folder.parent, {"ome": {"version": VERSION, "labels": [self._label]}})
        _write_group(folder, {"ome": self._metadata(spec, len(grids))})
        front = (spec.channels,) if spec.channels else ()
        arrays = [
            zarr.open_array(folder / str(level), mode="r+")
            if resumed
            else zarr.create_array(
                folder / str(level),
                shape=(*front, grid.height, grid.width),
                chunks=(*(1 for _ in front), grid.tile_px, grid.tile_px),
                dtype=spec.dtype,
                compressors=_compressors(self._compression),
                fill_value=0,
                dimension_names=[*("c" for _ in front), "y", "x"],
            )
            for level, grid in enumerate(grids)
        ]
        encode = chunk_encoder(self._compression)
        return ZarrStore(folder, arrays, grids, dtype=np.dtype(spec.dtype), encode=encode)

    def _metadata(self, spec: ResultSpec, levels: int) -> dict[str, Any]:
        found: dict[str, Any] = {"version": VERSION, "multiscales": [multiscales(spec, levels, self._label)]}
        if not spec.channels:
            found["image-label"] = image_label(spec.labels, in_image=self._in_image)
        return found

    def _complete(self, part: PartFolder) -> None:
        super()._complete(part)
        self._register()

    def _register(self) -> None:
        """Name the label in the image that it was added to."""
        if self._in_image:
            _register(self.path.parent, self._label)

    def _options(self) -> dict[str, Any]:
        import numcodecs
        import zarr

        return {"format": f"OME-Zarr {VERSION}", "compression": self._compression, "zarr": zarr.__version__,
                "numcodecs": numcodecs.__version__, "label": self._label}  # fmt: skip


_NO_GROUPS = {"zarr.json": "a Zarr array", ".zarray": "a Zarr array", ".zgroup": "Zarr of format 2"}


def zarr_target(path: Path) -> bool:
    """Return whether ``path`` names a Zarr container, or a label in one."""
    return path.suffix == ".zarr" or _explicit_label(path)


def is_zarr_group(folder: Path) -> bool:
    """Return whether ``folder`` is a group of Zarr format 3, which labels may be added to."""
    try:
        node = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(node, dict) and node.get("node_type") == "group"


def labels_folder(target: Path, label: str | None) -> Path:
    """Return the folder of the labels of a run into ``target``; ``target`` itself if it is not a Zarr."""
    if not zarr_target(target):
        return target
    container, name = _container_and_label(target, label)
    return container / "labels" / name


def _explicit_label(path: Path) -> bool:
    return path.parent.name == "labels" and path.parent.parent.suffix == ".zarr"


def _container_and_label(path: Path, label: str | None) -> tuple[Path, str]:
    if _explicit_label(path):
        if label not in (None, path.name):
            raise OptionError(f"{path} says which label is meant, and --label-name {label} another")
        return path.parent.parent, path.name
    name = label or DEFAULT_LABEL
    if "/" in name or name.startswith("."):
        raise OptionError(f"a label named {name!r} cannot be; use letters, digits, - and _")
    return path, name


def _check_container(container: Path) -> None:
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise SinkError("writing Zarr needs its library. What to do: pip install 'exactile[zarr]'") from error
    if container.is_dir() and not is_zarr_group(container) and any(container.iterdir()):
        what = next((what for name, what in _NO_GROUPS.items() if (container / name).is_file()), "no Zarr group")
        raise SinkError(f"{container} is {what}; labels go into Zarr of format 3. What to do: choose a new name")


def _compressors(name: str) -> Any:
    """Return the codecs in the arrays' metadata; ``chunk_encoder`` implements them."""
    from zarr.codecs import BloscCodec, ZstdCodec

    # Zarr's gzip codec writes the time of day into every chunk; Blosc's zlib gives equal bytes for equal pixels.
    zlib = BloscCodec(cname="zlib", clevel=6, shuffle="noshuffle", typesize=1)
    return {"zstd": [ZstdCodec(level=1)], "zlib": [zlib], "none": None}[name]


def chunk_encoder(name: str) -> ChunkEncoder:
    """Return what encodes a chunk's bytes like ``_compressors``, with the same library."""
    if name == "none":
        return lambda stored: stored
    from numcodecs.blosc import Blosc
    from numcodecs.zstd import Zstd

    codec = Zstd(level=1) if name == "zstd" else Blosc(cname="zlib", clevel=6, shuffle=Blosc.NOSHUFFLE, typesize=1)
    encode: ChunkEncoder = codec.encode
    return encode


def _write_group(folder: Path, attributes: dict[str, Any]) -> None:
    """A Zarr group of format 3; its document appears complete."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    new = folder / ".zarr.json.new"
    new.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
    new.replace(folder / "zarr.json")


def _register(labels: Path, name: str) -> None:
    """Name the label in the group above, as readers expect."""
    path = labels / "zarr.json"
    attributes = json.loads(path.read_text(encoding="utf-8")).get("attributes", {}) if path.is_file() else {}
    ome = attributes.get("ome", {})
    known = [*ome.get("labels", [])]
    if name not in known:
        _write_group(labels, {**attributes, "ome": {"version": VERSION, **ome, "labels": [*known, name]}})
