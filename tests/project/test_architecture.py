"""ARCHITECTURE.md is true: its examples run, its excerpts stand in the files that it names, its files exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from exactile.errors import SinkError, SourceError
from exactile.geometry import Box, Span
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.protocol import ResultSpec
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy, load_network
from tests.support.folders import ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
MODEL = ROOT / "models" / "stain_unet.onnx"
FOLDERS = ("", "runtime/exactile", "converters/exactile_converters")
"""Where the files lie that the document names."""


def example(name: str) -> type:
    """The class ``name`` as the document writes it."""
    (code,) = (block for block in BLOCKS if f"class {name}:" in block)
    scope: dict = {}
    exec(code, scope)
    return scope[name]


@pytest.fixture(scope="module")
def session():
    network = load_network(MODEL)
    opened = Session(deploy(network, image_dtype="uint8", normalization=Normalization(), strips=False), threads=1)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (83, 70, 3), np.uint8)


def labels_of(session, source) -> np.ndarray:
    sink = ArraySink()
    session.segment(source, sink)
    return sink.result


def test_the_source_gives_the_labels_of_one_pass(session, picture, tmp_path):
    """An image of odd size, read from a file without a header, against plain ONNX Runtime."""
    path = tmp_path / "camera.raw"
    path.write_bytes(picture.tobytes())
    source = example("RawSource")(path, *picture.shape)
    padded = np.pad(picture, ((0, 5), (0, 2), (0, 0)), mode="reflect").astype(np.float32)
    network = ort.InferenceSession(MODEL)
    (scores,) = network.run(None, {network.get_inputs()[0].name: padded.transpose(2, 0, 1)[None]})
    assert np.array_equal(labels_of(session, source), scores[0].argmax(0)[:83, :70])
    source.close()


def test_the_source_reads_boxes_and_refuses_other_sizes(picture, tmp_path):
    """A box in the middle; a file of which a byte is missing."""
    path = tmp_path / "camera.raw"
    path.write_bytes(picture.tobytes())
    source = example("RawSource")(path, *picture.shape)
    box = Box(Span(3, 20), Span(11, 60))
    out = np.empty((17, 49, 3), np.uint8)
    source.read(box, out)
    assert np.array_equal(out, picture[3:20, 11:60])
    assert source.identity()["size_bytes"] == picture.size
    source.close()
    path.write_bytes(picture.tobytes()[:-1])
    with pytest.raises(SourceError, match="samples need 17430"):
        example("RawSource")(path, *picture.shape)


def test_the_sink_counts_what_an_array_holds(session, picture):
    """Areas of the labels are those of the result as an array."""
    sink = example("AreaSink")()
    session.segment(ArraySource(picture), sink)
    labels, areas = np.unique(labels_of(session, ArraySource(picture)), return_counts=True)
    assert sink.areas == dict(zip(labels.tolist(), areas.tolist(), strict=True))


def test_the_sink_notices_a_missing_pixel():
    """What was not written is not counted as complete."""
    sink = example("AreaSink")()
    sink.begin(ResultSpec(height=4, width=5, channels=0, dtype="uint8"))
    sink.write(Box(Span(0, 4), Span(0, 4)), np.zeros((4, 4), np.uint8))
    with pytest.raises(SinkError, match="never written"):
        sink.finish()


def test_excerpts_stand_in_the_files_that_they_name():
    """Word for word, as they are today."""
    named = [block.partition("\n") for block in BLOCKS if block.startswith("# ")]
    assert len(named) == 2
    for first, _, excerpt in named:
        assert excerpt in (ROOT / first.removeprefix("# ")).read_text(encoding="utf-8"), first


def test_files_that_are_named_exist():
    """Every path in code marks with a suffix of a file, or that ends as a folder does."""
    without_code = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    named = set(re.findall(r"`([a-z_]+(?:/[A-Za-z_0-9]+)*(?:\.py|/))(?::[^`]*)?`", without_code))
    assert len(named) > 30
    places = [ROOT / folder for folder in FOLDERS]
    inside = [place for name in ("pipeline", "sources", "geometry", "tests") for place in _within(name)]
    missing = {name for name in named if "NAME" not in name and not any((at / name).exists() for at in places + inside)}
    assert missing == set()


@pytest.mark.parametrize("package", ["exactile", "exactile_converters"])
def test_the_floors_are_those_that_make_check_holds(package):
    """Those of the contract in pyproject.toml, in its order; of a floor the names in any order."""
    (house,) = (
        block for block in re.findall(r"```\n(.*?)```", TEXT, re.DOTALL) if block.startswith("runtime/exactile")
    )
    (drawn,) = (part for part in house.split("\n\n") if part.partition("\n")[0].endswith(f"/{package}"))
    names = [re.match(r"  (?:\w+(?:  )?)*", line)[0].split() for line in drawn.splitlines()[1:]]
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (floors,) = (one["layers"] for one in contracts if one.get("containers") == [package])
    assert [set(line) for line in names if line] == [set(floor.split(" | ")) for floor in floors]


def _within(name: str) -> list[Path]:
    return [ROOT / folder / name for folder in FOLDERS]
