"""Engines, really built by TensorRT-RTX, which needs no GPU for it: tiles, strips, precisions, what is kept."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import exactile
from exactile.engines.tensorrt_library import load_tensorrt
from exactile.errors import OptionError
from exactile.plan.strips import AxisDomain, AxisStrips
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.device import stored
from exactile_converters.device.form import strip_form, tile_form
from exactile_converters.prepare.from_onnx import load_network
from exactile_converters.tensorrt_engine import engines, plan
from exactile_converters.tensorrt_engine.engines import build_engines
from exactile_converters.torch_export import export_onnx
from models.fc_densenet import fc_densenet
from tests.support.nets import onnx_file
from tests.support.rtx_builds import ADA, AMPERE, NORMALIZATION, Told, plan_of, settings, unet_bundle

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return unet_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def bundle(made, tmp_path):
    """A U-Net's bundle to put engines beside."""
    return Path(shutil.copytree(made, tmp_path / "unet.bundle"))


@pytest.fixture(scope="module")
def unet(made):
    return exactile.open_bundle(made).model


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_tiles_and_strips_are_built_and_found_beside_the_bundle(bundle, precision):
    told = Told()
    wanted = settings(tile=(64, 96), precision=precision, strip_rows=32, strip_width=96)
    outcomes = build_engines(bundle, wanted, watcher=told)
    model = exactile.open_bundle(bundle).model
    assert model.engines_refused == ()
    assert {outcome.engine for outcome in map(hashable, outcomes)} == set(map(hashable_engine, model.engines))
    assert [outcome.engine.role for outcome in outcomes] == ["tile", "first", "body", "last"]
    assert all(outcome.state == "built" and "differ" in outcome.agreement for outcome in outcomes)
    carried = {spec.dtype for name, spec in outcomes[2].engine.inputs.items() if name.startswith("carry")}
    assert "float16" in carried if precision == "fp16" else "float32" in carried
    assert told.steps == ["checking", "building"] * 4
    assert told.shares[-1] == 1.0
    assert told.notes == []


def hashable(outcome):
    return replace(outcome, engine=hashable_engine(outcome.engine))


def hashable_engine(engine):
    return engine.plan, engine.plan_sha256, engine.role, engine.rows, engine.columns, engine.precision


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """FC-DenseNet-56 with a growth of 4."""
    return deploy(load_network(onnx_file(tmp_path_factory.mktemp("dense"), "fc_densenet56")), image_dtype="uint8")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("role", ["tile", "first", "body", "last"])
def test_fc_densenet_56_is_built(dense, role, precision):
    if role == "tile":
        form = tile_form(dense, (256, 256), precision=precision)
    else:
        rows = {"first": (448, 448), "body": (64, 64), "last": (32, 64)}[role]
        form = strip_form(dense, role, rows, 128, precision=precision)
    assert len(plan_of(dense, form, precision=precision)) > 1 << 20


@pytest.mark.slow(reason="converting, running and building the full network takes minutes")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_whole_fc_densenet_56_is_built(tmp_path, precision):
    torch.manual_seed(0)
    export_onnx(fc_densenet(56, 3, 3).eval(), tmp_path / "net.onnx", 3, exporter="torchscript", stride=32)
    convert(tmp_path / "net.onnx", tmp_path / "bundle", normalization=NORMALIZATION)
    wanted = settings(tile=(1024, 1024), precision=precision, strip_rows=128, strip_width=1024)
    assert [outcome.state for outcome in build_engines(tmp_path / "bundle", wanted)] == ["built"] * 4


def test_a_build_gives_the_same_bytes_again(unet):
    """Of strips with several inputs or outputs, RTX lists these in another order each time."""
    for form in (tile_form(unet, (64, 64)), tile_form(unet, (64, 64), precision="fp16")):
        assert plan_of(unet, form) == plan_of(unet, form)


def test_several_gpus_in_one_engine_and_all_when_none_is_named(bundle):
    several = build_engines(bundle, settings(compute_capabilities=(ADA, (7, 5), AMPERE, ADA)))[0].engine
    assert several.compute_capabilities == ((7, 5), AMPERE, ADA)
    assert "sm75+sm86+sm89" in several.plan.name
    everywhere = build_engines(bundle, settings(compute_capabilities=None))[0].engine
    assert everywhere.compute_capabilities == (AMPERE, ADA, (12, 0), (12, 1))
    assert len(exactile.open_bundle(bundle).model.engines) == 2


def test_16_bit_images_batches_and_statistics_are_built(tmp_path):
    from exactile.contract import ImageStatistics

    path = tmp_path / "bundle"
    normalization = Normalization(statistics=ImageStatistics(kind="zscore"))
    convert(onnx_file(tmp_path, "unet_d1"), path, image_dtype="uint16", normalization=normalization, output="raw")
    for precision in ("fp32", "fp16"):
        (outcome,) = build_engines(path, settings(batch=3, precision=precision))
        assert outcome.engine.inputs["exactile_image"].shape == (3, 64, 64, 1, 2)
        assert outcome.engine.inputs["exactile_scale"].shape == (1, 1, 1, 1)
        assert outcome.engine.outputs["exactile_result"].shape == (3, 3, 64, 64)


def test_a_bundle_of_half_precision_has_tiles_of_it(tmp_path):
    convert(onnx_file(tmp_path, "unet_d1"), tmp_path / "half", precision="fp16")
    (outcome,) = build_engines(tmp_path / "half", settings())
    assert outcome.engine.precision == "fp16"
    with pytest.raises(OptionError, match="the bundle is of fp16; for an engine of fp32, convert the model in fp32"):
        build_engines(tmp_path / "half", settings(precision="fp32"))
    with pytest.raises(OptionError, match="has no strips: of fewer bits, its strips hold the arithmetic of"):
        build_engines(tmp_path / "half", settings(strip_rows=32))


@pytest.mark.parametrize("name", ["unet_d2", "unet_transpose3_d2", "valid", "resnet_unet"])
def test_every_image_finds_the_strips_that_were_built(tmp_path, name):
    """Whatever the height, from the least one on: the plan's strips are those of the three engines."""
    model = deploy(load_network(onnx_file(tmp_path, name)), image_dtype="uint8")
    geometry = model.contract.geometry
    rows = geometry.y.stride * 3
    wanted = {each.role: each.rows for each in engines._wanted(opened_as(model), settings(tile=None, strip_rows=rows))}
    last_heights = set()
    for height in range(wanted["first"][0] + wanted["last"][0], wanted["first"][0] + wanted["last"][1] + 3 * rows):
        domain = AxisDomain.of(geometry.y, height, "model")
        strips = model.strips_at(replace(geometry, y=domain.geometry))
        plan_rows = AxisStrips.of(domain, strips, rows)
        for role, strip in zip(plan_rows.roles, plan_rows.heights, strict=True):
            assert wanted[role][0] <= strip <= wanted[role][1]
        last_heights.add(plan_rows.heights[-1])
    assert min(last_heights) == wanted["last"][0]
    assert max(last_heights) >= wanted["last"][1] - geometry.y.stride


def opened_as(model):
    """What of an opened bundle says which engines are wanted."""
    from types import SimpleNamespace

    y, x = (axis.accepted_size(1024) for axis in (model.contract.geometry.y, model.contract.geometry.x))
    return SimpleNamespace(model=model, file=SimpleNamespace(tile=SimpleNamespace(shape=(y, x))))


def test_what_is_there_is_kept_and_what_does_not_fit_any_more_is_replaced(bundle, monkeypatch):
    (first,) = build_engines(bundle, settings())
    before = first.engine.plan.stat().st_mtime_ns
    told = Told()
    (second,) = build_engines(bundle, settings(), watcher=told)
    assert (first.state, second.state, told.steps) == ("built", "up to date", [])
    assert second.engine.plan.stat().st_mtime_ns == before
    assert build_engines(bundle, settings(rebuild=True))[0].state == "replaced"
    assert first.engine.plan.stat().st_mtime_ns > before
    assert build_engines(bundle, settings(optimization_level=2))[0].state == "replaced"
    assert build_engines(bundle, settings(tile=(96, 64)))[0].state == "built"
    assert build_engines(bundle, settings(compute_capabilities=(ADA,)))[0].state == "built"
    assert len(exactile.open_bundle(bundle).model.engines) == 3

    other = replace(load_tensorrt("tensorrt-rtx"))
    monkeypatch.setattr(type(other), "version", "1.8.0")
    (newer,) = build_engines(bundle, settings())
    assert newer.state == "replaced"
    assert newer.engine.backend_version == "1.8.0"
    found = exactile.open_bundle(bundle).model
    assert len(found.engines) == 3
    assert found.engines_refused == ()
    assert not first.engine.plan.exists()


def test_a_changed_engine_is_built_again(bundle):
    (outcome,) = build_engines(bundle, settings())
    content = outcome.engine.plan.read_bytes()
    outcome.engine.plan.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert build_engines(bundle, settings())[0].state == "replaced"
    assert outcome.engine.plan.read_bytes() == content
    outcome.engine.plan.write_bytes(content[:100])
    assert "has 100 bytes where" in exactile.open_bundle(bundle).model.engines_refused[0]
    assert build_engines(bundle, settings())[0].state == "replaced"
    assert exactile.open_bundle(bundle).model.engines_refused == ()


def test_engines_of_a_model_that_was_converted_again_are_replaced(bundle, tmp_path):
    build_engines(bundle, settings())
    kept = shutil.copytree(bundle / "engines", tmp_path / "kept")
    convert(onnx_file(tmp_path, "unet_d2"), bundle, overwrite=True)
    assert not (bundle / "engines").exists()
    shutil.copytree(kept, bundle / "engines")
    assert "built for another model" in exactile.open_bundle(bundle).model.engines_refused[0]
    assert build_engines(bundle, settings())[0].state == "replaced"
    assert exactile.open_bundle(bundle).model.engines_refused == ()


def test_a_graph_too_large_for_one_message_is_built_from_files(unet, monkeypatch):
    """As if a message held 1000 bytes."""
    form = tile_form(unet, (64, 64))
    whole = plan_of(unet, form)
    monkeypatch.setattr(stored, "LARGEST_MESSAGE_BYTES", 1000)
    assert abs(len(plan_of(unet, form)) - len(whole)) < 1000


def test_a_network_is_not_strongly_typed_by_accident(unet):
    """An FP16 graph is an FP16 engine: nothing else is asked for, and TensorRT takes the types of the graph."""
    single, half = (len(plan_of(unet, tile_form(unet, (64, 64), precision=p))) for p in ("fp32", "fp16"))
    assert single != half
    assert plan._Build._flags(trt) == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
