"""Bundles of networks that take statistics of the whole image, against plain ONNX Runtime on the whole image."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import exactile
from exactile.cli.main import app
from exactile.errors import BundleError, ExactileError, ModelError, NotTileableError, OptionError
from exactile.planning import Wish
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource
from exactile_converters.convert import convert
from exactile_converters.device.form import pass_form
from exactile_converters.device.pass_agreement import check_pass
from exactile_converters.tensorrt_engine.engines import build_engines
from tests.passes.test_passes import TOLERANCE, deployed, image_of, one_pass, segment, small_tile
from tests.support import global_nets, whole_nets
from tests.support.rtx_builds import settings

BLOCKS = ("excitation", "instance_norm", "largest")
SIZES = ((77, 90), (64, 83))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def bundles(folder):
    """By the block that looks at the whole image; all grow from one ONNX file each."""
    found = {}
    for block in BLOCKS:
        path = folder / f"{block}.onnx"
        path.write_bytes(global_nets.chain(block))
        convert(path, folder / f"{block}.bundle", output="raw", tile=(64, 64))
        found[block] = folder / f"{block}.bundle"
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_bundle_gives_what_one_pass_gives(bundles, block, size):
    image, model = image_of(size), exactile.open_bundle(bundles[block]).model
    expected = one_pass(global_nets.chain(block), image)
    for plan, tile in (("whole", None), ("tile", (64, 64)), ("strip", None)):
        sink = ArraySink()
        summary = Session(model).segment(ArraySource(image), sink, plan=plan, tile=tile)
        assert len(summary.passes) == (0 if plan == "whole" else len(model.levels))
        assert sink.result.shape == expected.shape
        assert np.abs(sink.result - expected).max() <= TOLERANCE * np.abs(expected).max(), plan
    assert model.contract.verification.by == "running"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", BLOCKS)
def test_an_image_that_fits_the_memory_is_run_in_one_pass(bundles, block, size):
    image, model = image_of(size), exactile.open_bundle(bundles[block]).model
    sink = ArraySink()
    summary = Session(model).segment(ArraySource(image), sink)
    assert summary.passes == ()
    assert "one pass over the whole image" in summary.reason
    expected = one_pass(global_nets.chain(block), image)
    assert np.abs(sink.result - expected).max() <= 1e-6 * np.abs(expected).max()


def test_an_image_that_does_not_fit_is_run_in_passes(bundles):
    """Of 16 GiB of pixels nothing is read: the plan alone is chosen."""
    model = exactile.open_bundle(bundles["excitation"]).model
    session = Session(model, memory_bytes=4 << 30)

    source = ArraySource(np.zeros((8, 8, 1), np.uint8))
    source.height = source.width = 1 << 17
    run = session.image_run(source, ArraySink(), Wish())
    assert run.model.levels
    assert run.model.contract.obstacles == ()


def test_why_nothing_else_computes_is_said_in_every_way(bundles):
    session = Session(exactile.open_bundle(bundles["instance_norm"]).model)
    session._processor.reason = "not another one"
    for plan, tile in (("whole", None), ("tile", (64, 64)), ("strip", None)):
        summary = session.segment(ArraySource(image_of(SIZES[0])), ArraySink(), plan=plan, tile=tile)
        assert summary.processor.endswith("(not another one)"), plan


def test_it_runs_without_onnx(bundles, tmp_path):
    """In a process where neither onnx nor the converter can be imported."""
    np.save(tmp_path / "image.npy", image_of(SIZES[0]))
    script = f"""
import sys
sys.modules.update(dict.fromkeys(("onnx", "onnx_ir", "exactile_converters", "torch")))
import numpy as np, exactile
result = exactile.segment({str(bundles["excitation"])!r}, np.load({str(tmp_path / "image.npy")!r}), plan="tile")
np.save({str(tmp_path / "result.npy")!r}, result)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    expected = one_pass(global_nets.chain("excitation"), image_of(SIZES[0]))
    assert np.abs(np.load(tmp_path / "result.npy") - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_info_tells_passes_and_runs_the_sample(bundles):
    done = CliRunner().invoke(app, ["info", str(bundles["instance_norm"]), "--test"])
    assert done.exit_code == 0, done.output
    assert "over the image for" in done.output
    assert "passed" in done.output
    done = CliRunner().invoke(app, ["info", str(bundles["instance_norm"]), "--json"])
    contract = json.loads(done.stdout)
    assert contract["version"] == 4
    assert contract["levels"][0]["statistics"][0]["kind"] == "moments"


def copy_of(bundle, target, change) -> None:
    shutil.copytree(bundle, target)
    contract = json.loads((target / "contract.json").read_text())
    change(contract["levels"])
    (target / "contract.json").write_text(json.dumps(contract))


def test_a_graph_of_statistics_that_is_another_is_refused(bundles, tmp_path):
    """By the contract that every graph carries, where hashes cannot tell."""

    def narrower(levels):
        levels[0]["geometry"]["y"]["before"] -= 1

    copy_of(bundles["excitation"], tmp_path / "narrow.bundle", narrower)
    model = exactile.open_bundle(tmp_path / "narrow.bundle").model
    with pytest.raises(ExactileError, match="convert"):
        Session(model).segment(ArraySource(image_of(SIZES[0])), ArraySink(), plan="tile")


def test_statistics_that_contradict_themselves_are_refused(bundles, tmp_path):
    def shapes(levels):
        levels[0]["statistics"][0]["shapes"][0] = [1, 7, 1, 1]

    copy_of(bundles["excitation"], tmp_path / "shapes.bundle", shapes)
    with pytest.raises(BundleError, match="contradicts itself"):
        exactile.open_bundle(tmp_path / "shapes.bundle")

    def maps(levels):
        levels[0]["on_device"]["rows"] = []

    copy_of(bundles["excitation"], tmp_path / "maps.bundle", maps)
    with pytest.raises(BundleError, match="contradicts itself: a graph for GPUs speaks of 0 and 1 maps"):
        exactile.open_bundle(tmp_path / "maps.bundle")

    def unlisted(levels):
        levels[0]["graph"]["file"] = "other.onnx"

    copy_of(bundles["excitation"], tmp_path / "unlisted.bundle", unlisted)
    with pytest.raises(BundleError, match="does not list it"):
        exactile.open_bundle(tmp_path / "unlisted.bundle")


def test_what_is_refused(bundles, folder):
    """Fewer bits, engines, and what no statistics explain: then the obstacles that are left are named, no others."""
    with pytest.raises(OptionError, match="found at fp32 alone"):
        convert(folder / "excitation.onnx", folder / "half.bundle", precision="fp16")
    with pytest.raises(OptionError, match="half precision cannot sum up"):
        build_engines(bundles["excitation"], settings(precision="fp16"))
    (folder / "attention.onnx").write_bytes(whole_nets.attention())
    with pytest.raises(NotTileableError) as caught:
        convert(folder / "attention.onnx", folder / "attention.bundle")
    assert "MatMul_scores" in str(caught.value)
    assert "GlobalAveragePool" not in str(caught.value)


def test_engines_are_built_for_each_pass(bundles, tmp_path):
    """By the real TensorRT for RTX; they are read back with the bundle, and built again where one is another's."""
    shutil.copytree(bundles["instance_norm"], tmp_path / "net.bundle")
    made = build_engines(tmp_path / "net.bundle", settings())
    assert [one.engine.level for one in made] == [None, 1, 2]
    assert all("max-abs" in one.agreement for one in made)
    model = exactile.open_bundle(tmp_path / "net.bundle").model
    assert model.engines_refused == ()
    assert {one.level for one in model.engines} == {None, 1, 2}
    assert [one.state for one in build_engines(tmp_path / "net.bundle", settings())] == ["up to date"] * 3
    shown = CliRunner().invoke(app, ["info", str(tmp_path / "net.bundle")])
    assert "fp32 tile of pass 2, 64 x 64 pixels" in shown.output.replace("\n", " ")
    record = next((tmp_path / "net.bundle" / "engines").glob("pass2-*.json"))
    record.write_text(record.read_text().replace('"level": 2', '"level": 3'))
    (refused,) = exactile.open_bundle(tmp_path / "net.bundle").model.engines_refused
    assert "no pass 3" in refused


def test_a_form_that_finds_other_statistics_is_refused(bundles):
    """Planted: the squares of distances left out, columns beyond the zone counted."""
    model = exactile.open_bundle(bundles["instance_norm"]).model
    for operator, change in (("Mul", "Add"), ("Greater", "Less")):
        form = pass_form(model, 2, (64, 64))
        ours = [node for node in form.model.graph.node if node.name.startswith("exactile_partial")]
        next(node for node in ours if node.op_type == operator).op_type = change
        with pytest.raises(ModelError, match="does not give what the bundle's graph gives"):
            check_pass(model, form, "fp32")


def test_weights_are_stored_once(bundles):
    """The graphs of statistics refer to the same arrays as that of the result."""
    folder = bundles["excitation"]
    for name in ("graph.onnx", "statistics-1.onnx"):
        graph = onnx.load(folder / name, load_external_data=False).graph
        large = [one for one in graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
        assert all(one.external_data[0].value == "weights.bin" for one in large)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_bundle_keeps_maps_between_passes(bundles, block, size, kept_maps):
    """At sizes that nobody knew when it was made: the same passes as of a model that is deployed for the size."""
    found = exactile.open_bundle(bundles[block]).model
    keeping = found.keeping
    assert keeping is not None
    tile = small_tile(keeping.at(size), size)
    result, summary = segment(found, image_of(size), "tile", tile)
    assert summary.verification.by == "running"
    assert len(kept_maps) == 1
    expected, other = segment(deployed(global_nets.chain(block), size), image_of(size), "tile", tile)
    assert np.array_equal(result, expected)
    assert [one.computed_pixels for one in summary.passes] == [one.computed_pixels for one in other.passes]


def test_kept_maps_that_contradict_themselves_are_refused(bundles, tmp_path):
    for index, change in enumerate(
        (
            lambda keeping: keeping["passes"].pop(),
            lambda keeping: keeping["passes"][0]["writes"].append(99),
            lambda keeping: keeping["y"][0]["geometry"].pop(),
            lambda keeping: keeping["x"][0]["geometry"].append(0),
            lambda keeping: keeping["maps"][0]["shape"].insert(0, None),
        )
    ):
        target = tmp_path / f"{index}.bundle"
        shutil.copytree(bundles["excitation"], target)
        contract = json.loads((target / "contract.json").read_text())
        change(contract["keeping"])
        (target / "contract.json").write_text(json.dumps(contract))
        with pytest.raises(BundleError, match="contradicts itself"):
            exactile.open_bundle(target)
