"""What a file is that is no image, or no model, is named where it can be, with what to do."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import shlex
import subprocess
import zipfile

import numpy as np
import onnx
import pytest
import tifffile
import torch

from exactile.errors import ModelError, SourceError
from exactile.file_kinds import file_kind
from exactile.sources.open import open_source
from exactile_converters.prepare.from_onnx import load_network
from tests.support.command import exactile
from tests.support.nets import onnx_bytes, onnx_file
from tests.support.pictures import encoded, jpegxl, samples


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    return stream.getvalue()


def saved(module) -> bytes:
    stream = io.BytesIO()
    torch.save(module, stream)
    return stream.getvalue()


def tiff() -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, samples(3), photometric="rgb")
    return stream.getvalue()


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, samples(3))
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"
HEADER = json.dumps({"conv.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
SAFETENSORS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(4)
STATE = saved({"weight": torch.zeros(1)})
GIF = encoded(samples(1), "GIF")

NO_IMAGES = {
    "nothing": (b"", "empty; copy it again"),
    "nifti": (bytes(344) + b"n+1\0" + bytes(100), "NIfTI volume; store the image as TIFF, OME-Zarr or .npy"),
    "mrc": (bytes(208) + b"MAP " + bytes(900), "MRC map; store"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), r"HDF5.*\.npy"),
    "gzip": (gzip.compress(tiff()), "compressed with gzip; unpack it: gunzip"),
    "bzip2": (b"BZh91AY", "compressed with bzip2"),
    "xz": (b"\xfd7zXZ\0", "compressed with xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\0", "compressed with zstd"),
    "zip": (zipped("readme.txt"), "zip archive; unpack it: unzip"),
    "zipped zarr": (zipped("zarr.json", "c/0/0"), "zipped Zarr image; unpack it, and give the folder"),
    "zipped zarr 2": (zipped("a.zarr/.zgroup"), "zipped Zarr image"),
    "npz": (zipped("a.npy", "b.npy"), "npz archive"),
    "lfs": (LFS, "Git LFS pointer.*git lfs pull"),
    "pdf": (b"%PDF-1.7", "PDF document"),
    "gif": (GIF, "GIF picture; store the frame"),
    "avif": (b"\0\0\0\x20ftypavif", "AVIF picture"),
    "heic": (b"\0\0\0\x20ftypheic", "HEIC picture"),
    "page": (b"\n<!DOCTYPE html><html>", "web page.*download"),
    "page without a declaration": (b"<html lang=en>", "web page"),
    "fits": (b"SIMPLE  =                    T", "FITS file"),
    "netpbm": (b"P6\n3 3\n255\n", "Netpbm"),
    "photoshop": (b"8BPS\0\1", "Photoshop"),
    "onnx": (onnx_bytes("unet_d1"), "ONNX model; it is no image; the model comes first"),
    "pytorch": (STATE, "PyTorch file; it is no image; the model comes first"),
    "else": (b"who knows", "of an unknown format; TIFF"),
}

NO_MODELS = {
    "tiff": (tiff(), "TIFF image.*the model comes first and the image second: exactile run MODEL IMAGE -o OUTPUT"),
    "npy": (npy(), r"\.npy array.*the model comes first"),
    **{
        kind: (data, f"{kind} picture.*the model comes first")
        for kind, data in {
            "PNG": encoded(samples(3), "PNG"),
            "JPEG": encoded(samples(3), "JPEG"),
            "BMP": encoded(samples(3), "BMP"),
            "WebP": encoded(samples(3), "WEBP"),
            "JPEG 2000": encoded(samples(3), "JPEG2000"),
            "JPEG XL": jpegxl(samples(1, "uint16"), lossless=True),
            "GIF": GIF,
        }.items()
    },
    "ort": (b"\x18\0\0\0ORTM" + bytes(99), r"ONNX Runtime's own format \(\.ort\).*the \.onnx file"),
    "pytorch": (STATE, "PyTorch file.*exactile convert --torch MODULE:FACTORY --weights"),
    "old pytorch": (pickle.dumps({"weight": 1}), "PyTorch file.*exactile convert --torch"),
    "keras": (zipped("config.json", "metadata.json", "model.weights.h5"), "Keras model.*exactile convert"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5 file.*Keras model: exactile convert"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow Lite.*export the network to ONNX"),
    "plan": (b"ftrt" + bytes(99), "TensorRT engine.*bundle"),
    "safetensors": (SAFETENSORS, "weights alone .safetensors..*export it to ONNX"),
    "lfs": (LFS, "Git LFS pointer.*git lfs pull"),
    "page": (b"<!DOCTYPE html>", "web page"),
    "gzip": (gzip.compress(b"model"), "compressed with gzip"),
    "zip": (zipped("rdf.yaml"), "zip archive.*BioImage"),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_named_with_what_to_do(tmp_path, name):
    content, message = NO_IMAGES[name]
    (tmp_path / "image.dat").write_bytes(content)
    with pytest.raises(SourceError, match=rf"image\.dat: is (an? )?.*{message}"):
        open_source(tmp_path / "image.dat")


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_is_named_with_what_to_do(tmp_path, name):
    content, message = NO_MODELS[name]
    (tmp_path / "model.dat").write_bytes(content)
    with pytest.raises(ModelError, match=rf"model\.dat is .*{message}"):
        load_network(tmp_path / "model.dat")


@pytest.mark.parametrize("name", ["unet_d1", "dilated", "super_resolution"])
def test_onnx_files_are_models(tmp_path, name):
    kind = file_kind(onnx_file(tmp_path, name))
    assert kind is None or kind.name == "an ONNX model"
    proto = onnx.load_from_string(onnx_bytes(name))
    proto.ClearField("producer_name")
    onnx.save(proto, tmp_path / "model.onnx")
    assert load_network(tmp_path / "model.onnx").channels


def test_swapped_arguments_are_told(tmp_path):
    (tmp_path / "image.tif").write_bytes(tiff())
    model = onnx_file(tmp_path, "unet_d1")
    done = exactile("run", tmp_path / "image.tif", model, "-o", tmp_path / "labels.tif")
    assert done.returncode != 0
    assert "is a TIFF image, not an ONNX file; the model comes first" in re.sub(r"\s+", " ", done.stderr)


def test_the_way_out_of_gzip_is_true_when_typed(tmp_path):
    image = tmp_path / "an image.tif.gz"
    image.write_bytes(gzip.compress(tiff()))
    with pytest.raises(SourceError) as caught:
        open_source(image)
    subprocess.run(shlex.split(str(caught.value).partition("unpack it: ")[2]), check=True, cwd=tmp_path)
    source = open_source(tmp_path / "an image.tif")
    assert source.channels == 3
    source.close()
