"""Recognise a file that cannot be read as an image or model by its first bytes, and say what to do with it."""

from __future__ import annotations

import os
import re
import shlex
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

START_BYTES = 512
STORE = "store the image as TIFF, OME-Zarr or .npy"
_SWAPPED = "the model comes first and the image second: exactile run MODEL IMAGE -o OUTPUT"
_EXPORT = "export the network to ONNX, and give that file"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """``name`` follows "is"; the remedies for an expected image, and an expected model. ``{path}``
    stands for the file.
    """

    name: str
    as_image: str = STORE
    as_model: str = "give an ONNX file, or a bundle made by exactile convert"


def _image(name: str) -> FileKind:
    """Return a kind that is read as an image."""
    return FileKind(name=name, as_model=_SWAPPED)


def _other_image(name: str, remedy: str = STORE) -> FileKind:
    return FileKind(name=name, as_image=remedy, as_model=f"it is no model; {_SWAPPED}")


def _model(name: str, remedy: str) -> FileKind:
    return FileKind(name=name, as_image=f"it is no image; {_SWAPPED}", as_model=remedy)


_PLANES = f"{STORE}, a plane of it or planes as channels"
_TORCH = (
    "exactile convert --torch MODULE:FACTORY --weights {path} -o model.bundle, where FACTORY makes the network; "
    "TorchScript: exactile convert {path} -o model.bundle"
)

_ONNX = _model("an ONNX model", _EXPORT)
_ZEISS = _model("a model of Zeiss (.czann, .czseg, .czmodel)", "exactile convert {path} -o model.bundle")
_QUPATH = _model("a pixel classifier of QuPath", "exactile convert {path} -o model.bundle")
_TAKEN = (_ONNX, _ZEISS)
_TORCH_FILE = _model("a PyTorch file", _TORCH)
_LFS = FileKind(
    name="a Git LFS pointer, not the file itself",
    as_image="fetch it: git lfs pull",
    as_model="fetch it: git lfs pull",
)
_HTML = FileKind(
    name="a web page, not the file that was to be downloaded",
    as_image="download the file itself",
    as_model="download the file itself",
)
_ZIP = FileKind(
    name="a zip archive",
    as_image="unpack it: unzip {path}",
    as_model="exactile convert {path} -o model.bundle for a BioImage.IO package; otherwise unpack it: unzip {path}",
)
_ZIPPED_ZARR = _other_image("a zipped Zarr image", "unpack it, and give the folder: unzip {path} -d image.zarr")
_NPZ = _other_image("a .npz archive of arrays", "store the array alone, with numpy.save")
_KERAS = _model("a Keras model", "exactile convert {path} -o model.bundle")

_SIGNS: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, b"version https://git-lfs", _LFS),
    *((0, magic, _image("a TIFF image")) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (0, b"\x93NUMPY", _image("a .npy array")),
    (0, b"ZISRAWFILE", _image("a Zeiss CZI file")),
    (0, b"\x89PNG\r\n\x1a\n", _image("a PNG picture")),
    (0, b"\xff\xd8\xff", _image("a JPEG picture")),
    (0, b"\0\0\0\x0cjP  ", _image("a JPEG 2000 picture")),
    (0, b"\xff\x4f\xff\x51", _image("a JPEG 2000 picture")),
    (0, b"\0\0\0\x0cJXL ", _image("a JPEG XL picture")),
    (8, b"WEBP", _image("a WebP picture")),
    (0, b"GIF8", _other_image("a GIF picture", "store the frame that you want as PNG")),
    (8, b"avif", _other_image("an AVIF picture", "store it as PNG or TIFF")),
    *((8, brand, _other_image("a HEIC picture", "store it as PNG or TIFF")) for brand in (b"heic", b"heix", b"mif1")),
    (344, b"n+1\0", _other_image("a NIfTI volume", _PLANES)),
    (344, b"ni1\0", _other_image("the header of a NIfTI volume", _PLANES)),
    (208, b"MAP ", _other_image("an MRC map", _PLANES)),
    (0, b"\xda\xce\xbe\x0a", _image("a Nikon ND2 file")),
    (0, b"\x70\0\0\0", _image("a Leica LIF file")),
    (128, b"DICM", _image("a DICOM file")),
    (0, b"SIMPLE  =", _other_image("a FITS file", _PLANES)),
    (0, b"v/1\x01", _other_image("an OpenEXR picture")),
    (0, b"8BPS", _other_image("a Photoshop document", "save it as TIFF without layers")),
    *((0, b"P%d" % number, _other_image("a Netpbm picture", "store it as PNG or TIFF")) for number in range(1, 8)),
    (0, b"%PDF", _other_image("a PDF document", "store the picture in it as TIFF or PNG")),
    (0, b"\x89HDF\r\n\x1a\n", FileKind(
        name="an HDF5 file",
        as_image="store the array in it as .npy (h5py reads it, numpy.save writes it) or as OME-Zarr",
        as_model="a Keras model: exactile convert {path} -o model.bundle",
    )),
    (0, b"\x1f\x8b", FileKind(
        name="compressed with gzip", as_image="unpack it: gunzip {path}", as_model="unpack it: gunzip {path}",
    )),
    (0, b"BZh", FileKind(
        name="compressed with bzip2", as_image="unpack it: bunzip2 {path}", as_model="unpack it: bunzip2 {path}",
    )),
    (0, b"\xfd7zXZ\0", FileKind(
        name="compressed with xz", as_image="unpack it: unxz {path}", as_model="unpack it: unxz {path}",
    )),
    (0, b"\x28\xb5\x2f\xfd", FileKind(
        name="compressed with zstd", as_image="unpack it: unzstd {path}", as_model="unpack it: unzstd {path}",
    )),
    (4, b"ORTM", _model(
        "a model in ONNX Runtime's own format (.ort)", "give the .onnx file that it was made from"
    )),
    (4, b"TFL3", _model("a TensorFlow Lite model", f"{_EXPORT} (tf2onnx reads .tflite)")),
    *((0, magic, _model(
        "a TensorRT engine",
        "it can be run in a bundle alone: exactile convert MODEL.onnx -o model.bundle --engine tensorrt",
    )) for magic in (b"ftrt", b"ptrt")),
)  # fmt: skip

_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_ONNX_START = re.compile(rb"\x08[\x01-\x40][\x12\x1a\x22\x2a\x32\x3a\x42]")
_SAFETENSORS = re.compile(rb".{8}\{\s*\"", re.DOTALL)
_QUPATH_START = re.compile(rb"\s*\{.{0,400}?\"pixel_classifier_type\"", re.DOTALL)
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<\?xml[^>]*>\s*<!doctype html)", re.IGNORECASE)


def file_kind(path: str | os.PathLike[str]) -> FileKind | None:
    """Return the kind of ``path``; None if it is unknown, or cannot be read."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(START_BYTES)
    except (OSError, ValueError):
        return None
    if start.startswith(b"PK\x03\x04"):
        return _of_zip(path)
    if _is_bmp(start):
        return _image("a BMP picture")
    if _ONNX_START.match(start):
        return _ONNX
    signed = next((kind for at, magic, kind in _SIGNS if start[at : at + len(magic)] == magic), None)
    return signed or next((kind for known, kind in _BY_TEXT if known(start)), None)


def _is_bmp(start: bytes) -> bool:
    return start.startswith(b"BM") and start[6:10] == b"\0\0\0\0"


def _is_safetensors(start: bytes) -> bool:
    return _SAFETENSORS.match(start) is not None and int.from_bytes(start[:8], "little") < 1 << 32


_BY_TEXT: tuple[tuple[Callable[[bytes], object], FileKind], ...] = (
    (_PICKLE.match, _TORCH_FILE),
    (_PAGE.match, _HTML),
    (_QUPATH_START.match, _QUPATH),
    (
        _is_safetensors,
        _model(
            "weights alone (safetensors)",
            "the network is needed, too: load them into it, and export it to ONNX",
        ),
    ),
)


def _of_zip(path: str | os.PathLike[str]) -> FileKind:
    """Return the kind of a zip archive by the names in it; nothing is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return _ZIP
    last = {name.rpartition("/")[2] for name in names}
    if last & {"zarr.json", ".zarray", ".zgroup"}:
        return _ZIPPED_ZARR
    if "data.pkl" in last:
        return _TORCH_FILE
    if {"config.json", "model.weights.h5"} <= last:
        return _KERAS
    if names and all(name.endswith(".npy") for name in names):
        return _NPZ
    return _ZEISS if _is_zeiss(names) else _ZIP


def _is_zeiss(names: Sequence[str]) -> bool:
    """Return whether there is a network (*.model) beside its description, at the top of the archive."""
    top = [name.lower() for name in names if "/" not in name]
    described = "model.json" in top or any(name.endswith(".xml") for name in top)
    return described and any(name.endswith(".model") for name in top)


def is_zeiss_model(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is an archive with a network and Zeiss' description of it."""
    return file_kind(path) is _ZEISS


def is_qupath_classifier(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is a file in which QuPath keeps a pixel classifier."""
    return file_kind(path) is _QUPATH


def not_an_image(path: str | os.PathLike[str], read: str) -> str:
    """Return why ``path`` is not an image, and the remedy; ``read`` lists what can be read, if the file is unknown."""
    name = os.fspath(path)
    if Path(path).is_file() and not Path(path).stat().st_size:
        return f"{name}: is empty; copy it again"
    kind = file_kind(path)
    if kind is None:
        return f"{name}: is of an unknown format; {read}"
    return f"{name}: is {kind.name}; {_filled(kind.as_image, name)}"


def not_a_model(path: str | os.PathLike[str]) -> str | None:
    """Return why ``path`` is not an ONNX file, nor contains one, and the remedy; None if it may be one."""
    name = os.fspath(path)
    kind = file_kind(path)
    if kind is None or kind in _TAKEN:
        return None
    return f"{name} is {kind.name}, not an ONNX file; {_filled(kind.as_model, name)}"


def _filled(remedy: str, name: str) -> str:
    return remedy.replace("{path}", shlex.quote(name))
