"""Small files as makers and tools write them, around the test networks."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.support.nets import NETS, onnx_bytes
from tests.support.oracle import given_pass

FIXED_PX = 64
LARGEST = {"uint8": 255, "uint16": 65535, "float32": 1}


@cache
def channels_last(name: str) -> bytes:
    """The named network with images (N, 64, 64, C) and scores (N, H, W, C), as Zeiss' networks have them."""
    model = onnx.load_from_string(onnx_bytes(name))
    graph = model.graph
    image, scores = graph.input[0].name, graph.output[0].name
    classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    graph.node.insert(0, helper.make_node("Transpose", ["image_last"], [image], perm=[0, 3, 1, 2]))
    graph.node.append(helper.make_node("Transpose", [scores], ["scores_last"], perm=[0, 2, 3, 1]))
    del graph.input[:], graph.output[:]
    shape = ["batch", FIXED_PX, FIXED_PX]
    graph.input.append(helper.make_tensor_value_info("image_last", TensorProto.FLOAT, [*shape, NETS[name].channels]))
    graph.output.append(helper.make_tensor_value_info("scores_last", TensorProto.FLOAT, [*shape, classes]))
    return model.SerializeToString()


def zipped(path: Path, files: Mapping[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def czann(path: Path, name: str = "unet_d2", *, model: bytes | None = None, **described: object) -> Path:
    """A .czann file; keys of its description that are None are left out."""
    channels = NETS[name].channels
    content = {
        "FormatVersion": "2.1.0",
        "Id": "6eeb6202-6157-424e-abd4-c8fba4046b92",
        "Type": "SingleClassSemanticSegmentation",
        "InputShape": [FIXED_PX, FIXED_PX, channels],
        "OutputShape": [FIXED_PX, FIXED_PX, 3],
        "MinOverlap": [16, 16],
        "Classes": ["Background", "Cell", "Border"],
        "ModelName": "Cells",
        **described,
    }
    content = {key: value for key, value in content.items() if value is not None}
    return zipped(path, {"model.json": json.dumps(content), "model.model": model or channels_last(name)})


CLASSES = (("background", (255, 0, 0)), ("cell", (0, 255, 0)), ("bord & er", (0, 1, 254)))


def czseg(
    path: Path,
    name: str = "unet_d2",
    *,
    pixels: Sequence[str] = ("Bgr24",),
    classes: Sequence[tuple[str, tuple[int, int, int]]] = CLASSES,
    model: bytes | None = None,
    head: str = '<?xml version="1.0" encoding="utf-8"?>',
    **elements: object,
) -> Path:
    """A .czseg file; elements of its description that are None are left out."""
    ident = "cd45c952-27d0-4f0f-888a-cf560ee5728f"
    told = {
        "Id": ident,
        "Status": "Trained",
        "FeatureExtractor": "DeepNeuralNetwork",
        "Postprocessing": "None",
        "ColorHandling": "SplitRgb",
        "BorderSize": 8,
        "ScaleInputsByBitdepth": "true",
        "TotalTileHeight": FIXED_PX,
        "TotalTileWidth": FIXED_PX,
        **elements,
    }
    items = "".join(
        f'<Item colR="{r}" colG="{g}" colB="{b}" LabelValue="{value}" Name={quoteattr(text)} />'
        for value, (text, (r, g, b)) in enumerate(classes, 1)
    )
    text = "".join(f"<{key}>{value}</{key}>" for key, value in told.items() if value is not None)
    channels = "".join(f'<Item PixelType="{one}" />' for one in pixels)
    xml = (
        f'{head}<Model Version="3.2.0">{text}<Channels IsAfterColorHandling="true">{channels}</Channels>'
        f"<TrainingClasses>{items}</TrainingClasses></Model>"
    )
    files = {f"modelid={ident}": "", f"{ident}.xml": "\ufeff" + xml, f"{ident}.model": model or channels_last(name)}
    return zipped(path, files)


def samples(dtype: str, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Smooth noise over the range of ``dtype``."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((-(-shape[0] // 8), -(-shape[1] // 8), shape[2]))
    values = np.kron(coarse, np.ones((8, 8, 1)))[: shape[0], : shape[1]] * LARGEST[dtype]
    return np.ascontiguousarray(values.astype(dtype))


def scores(name: str, fed: np.ndarray) -> np.ndarray:
    """Of plain ONNX Runtime, (C, H, W), for what the network is fed by hand, (H, W, C)."""
    return given_pass(onnx_bytes(name), fed.astype(np.float32))


def with_metadata(data: bytes, values: Mapping[str, object], *, encode=json.dumps) -> bytes:
    """The model with ``metadata_props``, each value encoded."""
    model = onnx.load_from_string(data)
    for key, value in values.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, encode(value)
    return model.SerializeToString()
