"""A trained model of Zeiss, from the plugin napari-czann-segment: one pass, tiles and strips."""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import exactile
from exactile_converters.deploy import load_network

NAME = "PGC_20X_nucleus_detector.czseg"
PX = 1024
"""The only size that the network in the file takes."""

APART = 2e-5
"""Share of labels in which passes may differ from one pass of float32, whose sums over the image are less exact."""


@pytest.fixture(scope="module")
def detector():
    """An EfficientNet with squeeze-and-excitation, channels last, of a fixed size, as tf2onnx wrote it."""
    spec = find_spec("napari_czann_segment")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = next((path for place in places if (path := Path(place, "_data", NAME)).is_file()), None)
    if found is None:
        pytest.skip(f"{NAME} is in the wheel of napari-czann-segment 0.1.2: pip install --no-deps napari-czann-segment")
    return found


def cells(detector: Path) -> np.ndarray:
    """1024 x 1024 pixels of the image that the plugin has for it, uint16."""
    czi = pytest.importorskip("pylibCZIrw.czi", reason="pylibCZIrw reads the image")
    with czi.open_czi(str(detector.with_name("PGC_20X.czi"))) as file:
        pixels = file.read(plane={"C": 0}, roi=(1300, 860, PX, PX))
    return np.ascontiguousarray(pixels[..., 0])


def test_what_its_file_says_is_taken(detector):
    declared = load_network(detector).declared
    assert (declared.classes, declared.colors) == (("background", "nuc"), ("#ff0000", "#00ff00"))
    assert (declared.border_px, declared.tile_px, declared.channels) == ((64, 64), (1024, 1024), 1)
    assert declared.scaling.normalization("uint16").scale == (65535.0,)


@pytest.mark.slow
def test_passes_give_the_labels_of_one_pass(detector):
    """One pass is plain ONNX Runtime's to the label; tiles and strips have the same labels, but for a few near ties."""
    with zipfile.ZipFile(detector) as archive:
        model = archive.read(next(name for name in archive.namelist() if name.endswith(".model")))
    session, image = ort.InferenceSession(model), cells(detector)
    fed = (image.astype(np.float32) / np.float32(65535))[None, ..., None]
    (scores,) = session.run(None, {session.get_inputs()[0].name: fed})
    expected = scores[0].argmax(-1)
    assert 0.01 < expected.mean() < 0.5
    found = {
        plan: exactile.segment(detector, image, plan=plan, tile=tile, verify=False, cache=False, progress=False)
        for plan, tile in (("whole", None), ("tile", (512, 512)), ("strip", (128, PX)))
    }
    np.testing.assert_array_equal(found["whole"], expected)
    np.testing.assert_array_equal(found["tile"], found["strip"])
    assert (found["tile"] != expected).mean() <= APART
