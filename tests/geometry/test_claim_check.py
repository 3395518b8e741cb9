"""A network is run in tiles, strips and one pass before it is used: planted faults are found, sound networks pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from typer.testing import CliRunner

from exactile.cli.main import app
from exactile.contract import StripGraph
from exactile.errors import NotTileableError, VerificationError
from exactile.machine.cache_folder import FOLDER_VARIABLE
from exactile_converters import deploy_graphs
from exactile_converters.bundles import proven
from exactile_converters.convert import convert
from exactile_converters.deploy import load_network
from exactile_converters.networks import network as networks
from exactile_converters.verify.claim_check import check_claim
from tests.support import whole_nets
from tests.support.nets import onnx_file

NAME = "unet_d2"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return onnx_file(tmp_path_factory.mktemp("models"), NAME)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder


def plant(monkeypatch, **changed) -> None:
    """Claims of networks are these along the y axis."""
    honest = networks.trace

    def lying(*args, **kwargs):
        traced = honest(*args, **kwargs)
        y = replace(traced.geometry.y, **{name: change(traced.geometry.y) for name, change in changed.items()})
        return replace(traced, geometry=replace(traced.geometry, y=y))

    monkeypatch.setattr(networks, "trace", lying)


def plant_carry(monkeypatch) -> None:
    """Rows that the last strip takes over are halved."""
    honest = deploy_graphs.build_strips

    def lying(*args, **kwargs):
        strips = honest(*args, **kwargs)
        graph = onnx.load_from_string(strips.graphs["last"].graph)
        carry = next(f"{one.name}_in" for one in strips.carries if one.dtype == "float32")
        for node in graph.graph.node:
            node.input[:] = ["halved" if name == carry else name for name in node.input]
        graph.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
        graph.graph.node.insert(0, helper.make_node("Mul", [carry, "half"], ["halved"]))
        wrong = StripGraph(graph=graph.SerializeToString(), memory=strips.graphs["last"].memory)
        return replace(strips, graphs={**strips.graphs, "last": wrong})

    monkeypatch.setattr(deploy_graphs, "build_strips", lying)


HELD = ("unet_d3", "unet_bilinear_skip_d2", "segnet", "asymmetric", "valid", "super_resolution", "low_resolution")


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        pytest.param(name, weights, marks=pytest.mark.slow if (first + second) % 2 else ())
        for first, name in enumerate(HELD)
        for second, weights in enumerate(("random", "integer"))
    ],
)
def test_what_holds_is_found_to_hold(tmp_path, name, weights):
    found = check_claim(load_network(onnx_file(tmp_path, name, weights)))
    assert (found.tiles, found.strips, found.untried, found.with_strips) == ("", "", "", True)
    assert found.max_abs <= 1e-5 * found.largest
    assert found.largest > 1
    # Interpolation between ratios such as 7 and 13 rounds, whatever the weights.
    assert weights == "random" or "skip" in name or found.max_abs == 0


def test_the_network_stays_as_it_is(model):
    network = load_network(model)
    before = networks.ir.to_proto(network.model).SerializeToString()
    check_claim(network)
    assert networks.ir.to_proto(network.model).SerializeToString() == before


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_halo_one_pixel_too_small_is_found(model, monkeypatch, side):
    plant(monkeypatch, **{side: lambda axis: getattr(axis, side) - 1})
    found = check_claim(load_network(model))
    assert "along y" in found.tiles
    assert "the halo is too small" in found.tiles


def test_a_stride_too_small_is_found(model, monkeypatch):
    plant(monkeypatch, stride=lambda axis: axis.stride // 2)
    assert "the network does not run at" in check_claim(load_network(model)).tiles


def test_an_output_of_another_size_is_found(model, monkeypatch):
    plant(monkeypatch, size_constant=lambda _axis: 2)
    assert "its graph promises" in check_claim(load_network(model)).tiles


def test_a_wrong_carry_is_found_and_only_strips_are_blamed(model, monkeypatch):
    plant_carry(monkeypatch)
    found = check_claim(load_network(model))
    assert found.tiles == ""
    assert "strips of" in found.strips
    assert "differ from one pass by up to" in found.strips


def saved(folder: Path, nodes, outputs, *, kind=TensorProto.FLOAT, constants=(), dtype=TensorProto.FLOAT) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, ["n", 2, "h", "w"])],
        [helper.make_tensor_value_info("y", dtype, outputs)],
        list(constants),
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def weight(name="w", size=3, out=4) -> onnx.TensorProto:
    values = np.random.default_rng(0).standard_normal((out, 2, size, size)).astype(np.float32)
    return numpy_helper.from_array(values, name)


def conv(source="x", target="a", size=3) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, "w"], [target], pads=[size // 2] * 4)


def test_labels_inside_the_network_pass(tmp_path):
    nodes = [conv(), helper.make_node("ArgMax", ["a"], ["y"], axis=1)]
    path = saved(tmp_path, nodes, ["n", 1, "h", "w"], constants=[weight()], dtype=TensorProto.INT64)
    assert check_claim(load_network(path)).tiles == ""


def test_a_network_of_bytes_passes(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), conv("f", "y")]
    path = saved(tmp_path, nodes, ["n", 4, "h", "w"], constants=[weight()], kind=TensorProto.UINT8)
    found = check_claim(load_network(path))
    assert (found.tiles, found.strips, found.untried) == ("", "", "")


def test_a_quantised_network_passes(tmp_path, model):
    class Reader(CalibrationDataReader):
        def __init__(self):
            name = onnx.load(model).graph.input[0].name
            rng = np.random.default_rng(0)
            self.batches = iter([{name: rng.standard_normal((1, 3, 32, 32)).astype(np.float32)}])

        def get_next(self):
            return next(self.batches, None)

    path = tmp_path / "int8.onnx"
    quantize_static(model, path, Reader(), quant_format=QuantFormat.QDQ)
    assert check_claim(load_network(path)).tiles == ""


def test_a_network_that_does_not_look_at_the_image_proves_nothing(tmp_path):
    nodes = [
        helper.make_node("Less", ["x", "x"], ["never"]),
        helper.make_node("Cast", ["never"], ["f"], to=TensorProto.FLOAT),
        conv("f", "y"),
    ]
    found = check_claim(load_network(saved(tmp_path, nodes, ["n", 4, "h", "w"], constants=[weight()])))
    assert (found.tiles, found.strips) == ("", "")
    assert "the same whatever the image is" in found.untried


def test_a_check_that_does_not_fit_the_memory_is_not_made(model):
    found = check_claim(load_network(model), memory_bytes=1 << 20)
    assert "are allowed" in found.untried
    assert found.tiles == ""


def test_a_network_that_is_not_tileable_is_refused_for_that(tmp_path):
    path = tmp_path / "attention.onnx"
    path.write_bytes(whole_nets.attention())
    with pytest.raises(NotTileableError):
        check_claim(load_network(path))


# ---- the command line


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "image.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb")
    return path


def called(*arguments: object, fails: bool = False):
    outcome = CliRunner().invoke(app, [*map(str, arguments)])
    assert (outcome.exit_code != 0) == fails, outcome.output
    return outcome


def summary(*arguments: object) -> dict:
    return json.loads(called("run", *arguments, "--overwrite", "--json").stdout)


def test_a_run_checks_a_model_once(model, image, tmp_path, monkeypatch):
    calls = []
    honest = proven.check_claim
    monkeypatch.setattr(proven, "check_claim", lambda *args, **kwargs: (calls.append(1), honest(*args, **kwargs))[1])
    for _ in range(2):
        told = summary(model, image, "-o", tmp_path / "labels.tif")
        assert told["verification"]["by"] == "running"
        assert "tiles and strips equal one pass" in told["verification"]["note"]
    assert len(calls) == 1
    assert "proved by running" in called("inspect", model).stdout
    data = bytearray(model.read_bytes())
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(bytes(data) + onnx.ModelProto(doc_string="another").SerializeToString())
    summary(changed, image, "-o", tmp_path / "labels.tif")
    assert len(calls) == 2


def test_other_rules_check_again(model, image, tmp_path, monkeypatch):
    summary(model, image, "-o", tmp_path / "labels.tif")
    monkeypatch.setattr("exactile_converters.verify.verdicts.rules_digest", lambda: "other rules")
    assert "by rules only" in called("inspect", model).stdout


@pytest.mark.parametrize(
    "damage",
    [b"{", b'{"tiles": 5}', *(pytest.param(one, marks=pytest.mark.slow) for one in (b"", b"\xff\xfe", b"[]"))],
)
def test_a_damaged_cache_is_made_again(model, image, cache, tmp_path, damage):
    summary(model, image, "-o", tmp_path / "labels.tif")
    (kept,) = (cache / "verdicts").iterdir()
    good = kept.read_bytes()
    kept.write_bytes(damage)
    assert summary(model, image, "-o", tmp_path / "labels.tif")["verification"]["by"] == "running"
    assert kept.read_bytes() == good
    assert [*(cache / "verdicts").iterdir()] == [kept]


def test_a_cache_that_cannot_be_written_costs_time_only(model, image, cache, tmp_path):
    cache.write_text("a file where the folder should be")
    assert summary(model, image, "-o", tmp_path / "labels.tif")["verification"]["by"] == "running"
    assert cache.read_text() == "a file where the folder should be"


def test_no_verify_is_recorded(model, image, tmp_path, cache):
    told = summary(model, image, "-o", tmp_path / "labels.tif", "--no-verify")
    assert told["verification"] == {"by": "rules", "note": "--no-verify"}
    assert not cache.exists()
    called("convert", model, "-o", tmp_path / "no.bundle", "--no-verify")
    contract = json.loads((tmp_path / "no.bundle" / "contract.json").read_text())
    assert contract["verification"] == {"by": "rules", "note": "--no-verify"}
    assert "by rules only: --no-verify" in " ".join(called("info", tmp_path / "no.bundle").stdout.split())
    assert (
        summary(tmp_path / "no.bundle", image, "-o", tmp_path / "labels.tif")["verification"]["note"] == "--no-verify"
    )


def test_one_pass_needs_no_check(model, image, tmp_path, cache):
    told = summary(model, image, "-o", tmp_path / "labels.tif", "--plan", "whole")
    assert told["verification"] == {"by": "rules", "note": "one pass needs no proof"}
    assert not cache.exists()


def test_a_bundle_says_how_its_claim_is_known(model, image, tmp_path):
    called("convert", model, "-o", tmp_path / "net.bundle")
    assert "proved by running" in called("info", tmp_path / "net.bundle").stdout
    told = summary(tmp_path / "net.bundle", image, "-o", tmp_path / "labels.tif")
    assert told["verification"]["by"] == "running"
    contract = tmp_path / "net.bundle" / "contract.json"
    older = json.loads(contract.read_text())
    del older["verification"]
    contract.write_text(json.dumps(older))
    told = summary(tmp_path / "net.bundle", image, "-o", tmp_path / "labels.tif")
    assert told["verification"]["by"] == "rules"


def test_a_wrong_claim_is_refused_and_one_pass_is_the_way_out(model, image, tmp_path, monkeypatch):
    plant(monkeypatch, after=lambda axis: axis.after - 1)
    for _ in range(2):  # found, and kept
        failed = called("run", model, image, "-o", tmp_path / "labels.tif", fails=True)
        assert "the halo is too small" in failed.stderr
        assert not (tmp_path / "labels.tif").exists()
    assert "and they are wrong" in " ".join(called("inspect", model).stdout.split())
    with pytest.raises(VerificationError, match="--plan whole"):
        convert(model, tmp_path / "net.bundle")
    assert not (tmp_path / "net.bundle").exists()
    assert summary(model, image, "-o", tmp_path / "labels.tif", "--plan", "whole")["plan"] == "whole"
    assert summary(model, image, "-o", tmp_path / "labels.tif", "--no-verify")["verification"]["note"] == "--no-verify"


def test_strips_that_differ_are_left_out(model, image, tmp_path, monkeypatch):
    plant_carry(monkeypatch)
    told = summary(model, image, "-o", tmp_path / "labels.tif")
    assert told["plan"] in ("tile", "whole")
    assert "strips do not and are left out" in told["verification"]["note"]
    failed = called("run", model, image, "-o", tmp_path / "other.tif", "--plan", "strip", fails=True)
    assert "found by running the network" in failed.stderr
    converted = convert(model, tmp_path / "net.bundle")
    assert converted.file.strips is None
    assert "found by running the network" in converted.file.no_strips_reason


def test_little_memory_is_said(model, image, tmp_path, cache, monkeypatch):
    monkeypatch.setattr("exactile_converters.verify.claim_check.WEIGHT_COPIES", 1 << 40)
    outcome = called("run", model, image, "-o", tmp_path / "labels.tif", "--json")
    assert json.loads(outcome.stdout)["verification"]["by"] == "rules"
    assert "not checked by running it: it takes" in outcome.stderr
    assert not cache.exists()
