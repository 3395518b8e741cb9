"""No output replaces an input, whatever name, link or folder leads from one to the other."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
import zarr
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import exactile
from exactile.cli.main import app
from exactile.errors import InputOverwrittenError
from tests.support.command import exactile as exactile_command


def network(folder: Path, *, external: bool = False) -> Path:
    kernel = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, "H", "W"])],
        [numpy_helper.from_array(kernel, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "m.onnx"
    onnx.save(model, path, save_as_external_data=external, location="weights.tif", size_threshold=0)
    return path


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    done = exactile_command("convert", network(folder), "-o", folder / "b")
    assert done.returncode == 0, done.stderr
    return folder / "b"


@pytest.fixture
def place(tmp_path: Path, bundle: Path) -> Path:
    """A folder with a model, images, a mask, links to them, a Zarr image and a bundle."""
    network(tmp_path)
    slides = tmp_path / "slides"
    slides.mkdir()
    picture = np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    for name in ("a", "b"):
        tifffile.imwrite(slides / f"{name}.tif", picture, photometric="rgb")
    tifffile.imwrite(tmp_path / "mask.tif", picture[..., 0])
    (tmp_path / "link.tif").symlink_to(slides / "a.tif")
    (tmp_path / "folder").symlink_to(slides)
    os.link(slides / "a.tif", tmp_path / "hard.tif")
    zarr.create_array(tmp_path / "z.zarr", shape=picture.shape, chunks=(32, 32, 3), dtype="u1")[:] = picture
    shutil.copytree(bundle, tmp_path / "b")
    return tmp_path


RUNS = {
    "the image": "run m.onnx slides/a.tif -o slides/a.tif",
    "another spelling": "run m.onnx slides/a.tif -o slides/../slides/./a.tif",
    "a folder that is a link": "run m.onnx slides/a.tif -o folder/a.tif",
    "an image that is a link": "run m.onnx link.tif -o slides/a.tif",
    "an output that is a link": "run m.onnx slides/a.tif -o link.tif",
    "a hard link": "run m.onnx slides/a.tif -o hard.tif",
    "many images into their folder": "run m.onnx slides -o slides",
    "one of many images": "run m.onnx hard.tif slides/b.tif -o slides --format .tif",
    "the mask": "run m.onnx slides/a.tif -o mask.tif --skip-background mask.tif",
    "within the bundle": "run b slides/a.tif -o b/labels.tif",
    "the bundle by its contract": "run b/contract.json slides/a.tif -o b/labels.tif",
    "a trace for the contract": "run b slides/a.tif -o o.tif --trace b/contract.json",
    "a Zarr image": "run m.onnx z.zarr -o z.zarr --axes YXC",
    "within a Zarr image": "run m.onnx z.zarr -o z.zarr/c/o.tif --axes YXC",
    "a Zarr folder around its image": "run m.onnx z.zarr/inner.tif -o z.zarr",
    "the preview": "run m.onnx o.tif.preview.png.tif -o o.tif --preview --skip-background o.tif.preview.png",
    "the part file": "run m.onnx .o.tif.part -o o.tif",
    "the journal": "run m.onnx .o.tif.journal -o o.tif",
    "the statistics": "run m.onnx .o.tif.statistics -o o.tif",
    "a record": "run m.onnx slides/b.tif slides -o out --skip-background out/b.tif.json",
    "the plot": "inspect plot.png --plot plot.png",
    "the report": "verify report/index.html --report report",
    "the model as bundle": "convert m.onnx -o m.onnx",
    "a bundle that holds the model": "convert b/m.onnx -o b",
    "a bundle that holds a calibration image": "convert m.onnx -o b --precision int8 --calibrate b/i.tif",
}


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS.keys())
def test_an_output_that_is_an_input_is_refused_and_nothing_is_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """With --overwrite, too, and every file is what it was."""
    for name in (
        "o.tif.preview.png",
        "o.tif.preview.png.tif",
        ".o.tif.part",
        ".o.tif.journal",
        ".o.tif.statistics",
        "z.zarr/inner.tif",
    ):
        (place / name).write_bytes((place / "mask.tif").read_bytes())
    for name in ("out/b.tif.json", "plot.png", "report/index.html", "b/m.onnx", "b/i.tif"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes((place / "m.onnx").read_bytes())
    before = everything_in(place)
    command = words.split()
    more = [] if command[0] == "verify" else ["--overwrite"]
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, [*command, *more])
    assert done.exit_code in (2, 3), done.output
    assert everything_in(place) == before
    assert "which would be lost" in done.output or "is a Zarr array" in done.output


def test_the_weights_beside_a_model_are_inputs(tmp_path: Path) -> None:
    """External data is found although its name looks like a result's."""
    network(tmp_path, external=True)
    np.save(tmp_path / "i.npy", np.zeros((64, 80, 3), np.uint8))
    before = everything_in(tmp_path)
    done = exactile_command("run", "m.onnx", "i.npy", "-o", "weights.tif", "--overwrite", cwd=tmp_path)
    assert done.returncode == 2
    assert "weights file" in done.stderr
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    "words",
    [
        "run m.onnx slides -o slides --format .npy",
        "run m.onnx slides/a.tif -o slides/c.tif",
        "run b slides/a.tif -o b.tif",
    ],
)
def test_results_beside_their_images_are_written(place: Path, words: str) -> None:
    """Only what would replace an input is refused."""
    done = exactile_command(*words.split(), cwd=place)
    assert done.returncode == 0, done.stderr


def test_labels_go_into_the_ome_zarr_container_of_their_image(place: Path) -> None:
    """An image keeps its pixels when labels are written beside it, as OME-Zarr has them."""
    group = zarr.open_group(place / "i.zarr", mode="w", zarr_format=3)
    pixels = np.random.default_rng(2).integers(0, 256, (3, 64, 80), dtype=np.uint8)
    group.create_array("0", shape=pixels.shape, dtype="u1", chunks=(3, 32, 32))[:] = pixels
    axes = [{"name": name, "type": kind} for name, kind in (("c", "channel"), ("y", "space"), ("x", "space"))]
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}],
    }
    done = exactile_command("run", "m.onnx", "i.zarr", "-o", "i.zarr", cwd=place)
    assert done.returncode == 0, done.stderr
    assert (zarr.open_array(place / "i.zarr" / "0", mode="r")[:] == pixels).all()
    assert json.loads((place / "i.zarr/labels/segmentation/zarr.json").read_text())["node_type"] == "group"


def test_in_python_a_sink_does_not_replace_its_source(place: Path) -> None:
    """``Session.segment`` refuses as the command line does."""
    before = everything_in(place)
    session = exactile.Session(exactile.open_bundle(place / "b").model)
    source = exactile.open_source(place / "slides/a.tif")
    with pytest.raises(InputOverwrittenError, match="would be lost"):
        session.segment(source, exactile.open_sink(place / "hard.tif", overwrite=True))
    source.close()
    session.close()
    assert everything_in(place) == before
