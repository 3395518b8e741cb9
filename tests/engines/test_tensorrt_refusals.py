"""What TensorRT, the network or the settings do not allow is refused with its reason, and nothing is written."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

import exactile
from exactile.errors import BundleError, EngineBuildError, ModelError, OptionError
from exactile_converters.device.form import strip_form, tile_form
from exactile_converters.tensorrt_engine import capability, engines, plan
from exactile_converters.tensorrt_engine.engines import build_engines
from tests.support.rtx_builds import ADA, AMPERE, Told, plan_of, settings, unet_bundle

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


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


def unknown_operator(form):
    model = onnx.ModelProto()
    model.CopyFrom(form.model)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain, relu.name = "Shine", "net.example", "polish"
    model.opset_import.append(helper.make_opsetid("net.example", 1))
    return replace(form, model=model)


def optimised_by_onnx_runtime(form):
    form = unknown_operator(form)
    shine = next(node for node in form.model.graph.node if node.op_type == "Shine")
    shine.op_type, shine.domain = "QuickGelu", "com.microsoft"
    form.model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return form


def wrong_channels(form):
    """A convolution that takes more channels than come."""
    model = onnx.ModelProto()
    model.CopyFrom(form.model)
    conv = [node for node in model.graph.node if node.op_type == "Conv"][2]
    conv.input[0] = next(node for node in model.graph.node if node.op_type == "Conv").input[0]
    return replace(form, model=model)


def described_otherwise(form):
    specs = {name: replace(spec, dtype="float32") for name, spec in form.outputs.items()}
    return replace(form, outputs=specs)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unknown_operator, r"does not take the graph: at the node polish \(Shine\): .*"),
        (optimised_by_onnx_runtime, r"polish \(QuickGelu\): .*wrote QuickGelu .*give the one before it was optimised"),
        (wrong_channels, r"tensorrt-rtx 1\.\d.* does not take the graph: at the node .*Conv.*Kernel weight dimension"),
        (described_otherwise, "interprets the graph differently: .*float32"),
    ],
)
def test_a_graph_that_tensorrt_does_not_take_is_refused_with_its_reason(unet, spoil, message):
    with pytest.raises(EngineBuildError, match=message) as caught:
        plan_of(unet, spoil(tile_form(unet, (64, 64))))
    assert len(str(caught.value)) < plan.LONGEST_DETAIL + 300


def test_a_workspace_that_is_too_small_is_told_with_what_tensorrt_says(unet):
    form = tile_form(unet, (64, 64))
    with pytest.raises(
        EngineBuildError, match=r"the workspace is 1 bytes; give more with --workspace\): .*tactic"
    ) as e:
        plan_of(unet, form, workspace_bytes=1)
    assert "Local timing cache" not in str(e.value)  # that is no error
    assert plan_of(unet, form, workspace_bytes=1 << 30)


def test_rows_that_make_no_profile_are_refused(unet):
    form = strip_form(unet, "last", (4, 32), 64)
    assert plan_of(unet, form)
    with pytest.raises(EngineBuildError, match=r"tensorrt-rtx .*(rows|profile)"):
        plan_of(unet, replace(form, rows=(32, 4)))


NOT_FOR_RTX = (
    r"does not run on GPUs of compute capability \d+\.\d, but on 7\.5, 8\.6, 8\.9, 12\.0, 12\.1 alone; "
    r"take --engine onnxruntime .*, or --engine tensorrt$"
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"compute_capabilities": ((8, 6), capability)}, NOT_FOR_RTX)
            for capability in ((8, 0), (8, 7), (9, 0), (10, 0))
        ),
        ({"tile": (65, 64)}, r"a tile of height 65 does not suit this network \(stride 4, least 52\)"),
        ({"tile": (64, 32)}, r"a tile of width 32 does not suit this network"),
        ({"strip_rows": 33}, "a strip of 33 rows does not fit the stride of 4; try 36"),
        ({"strip_rows": 32, "strip_width": 50}, "a band of width 50 does not suit this network"),
    ],
)
def test_what_does_not_suit_the_network_is_refused(bundle, options, message):
    with pytest.raises(OptionError, match=message):
        build_engines(bundle, settings(**options))
    assert not (bundle / "engines").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "openvino"}, "engines are built by tensorrt or tensorrt-rtx"),
        ({"precision": "int8"}, "the precision of an engine is fp32, tf32, fp16"),
        ({"batch": 0}, "a batch is 1 to 1024 tiles"),
        ({"strip_width": 64}, "--strip-width belongs to --strip-rows"),
        ({"workspace_bytes": 0}, "at least one byte"),
        ({"optimization_level": 6}, "0 to 5"),
        ({"compute_capabilities": ()}, "name at least one compute capability"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        settings(**options)


def test_a_quantised_bundle_is_refused(bundle):
    file = bundle / "contract.json"
    file.write_text(file.read_text().replace('"precision": "fp32"', '"precision": "int8"'))
    with pytest.raises(OptionError, match="no unsigned 8-bit quantisation"):
        build_engines(bundle, settings())


def test_a_damaged_bundle_is_refused(bundle):
    (bundle / "graph.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"graph\.onnx has 1 bytes"):
        build_engines(bundle, settings())


def test_a_graph_that_computes_something_else_is_not_built(bundle, monkeypatch):
    """A planted error in the device form: the convolutions' results are negated."""
    form_of = engines.tile_form

    def spoiled(*args, **options):
        form = form_of(*args, **options)
        for node in form.model.graph.node:
            if node.op_type == "Relu":
                node.op_type = "Neg"
        return form

    monkeypatch.setattr(engines, "tile_form", spoiled)
    with pytest.raises(ModelError, match=r"does not give what the bundle's graph gives: \d+ of 4096 labels differ"):
        build_engines(bundle, settings())
    assert not (bundle / "engines").exists()


def test_a_tile_that_memory_does_not_suffice_for_is_checked_smaller(bundle, monkeypatch):
    monkeypatch.setattr(engines, "free_bytes", lambda: 12 << 20)
    told = Told()
    (outcome,) = build_engines(bundle, settings(tile=(512, 512), strip_rows=None), watcher=told)
    assert outcome.engine.rows == (512, 512)
    assert "checked as tile" in told.notes[0]
    assert "of 262144 labels" not in outcome.agreement


def test_a_missing_library_is_told_with_what_to_install(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for backend, extra in (("tensorrt-rtx", "exactile[rtx]"), ("tensorrt", "exactile[tensorrt]")):
        with pytest.raises(EngineBuildError) as caught:
            build_engines(bundle, settings(backend=backend))
        assert f"pip install '{extra}'" in str(caught.value)


def test_tensorrt_builds_for_the_gpu_that_is_there_and_no_other(monkeypatch):
    from types import SimpleNamespace

    library = SimpleNamespace(backend="tensorrt", module=None, version="11.4")
    monkeypatch.setattr(capability, "open_driver", lambda: SimpleNamespace(devices=lambda: (gpu,)))
    gpu = SimpleNamespace(compute_capability=AMPERE)
    assert capability.resolve(library, None) == (AMPERE,)
    assert capability.resolve(library, (AMPERE,)) == (AMPERE,)
    with pytest.raises(OptionError, match=r"for the GPU that is in the machine, which has .* 8\.6, not for 8\.9"):
        capability.resolve(library, (ADA,))


def test_an_older_rtx_does_not_build_for_what_newer_ones_do():
    from types import SimpleNamespace

    module = SimpleNamespace(__version__="1.3", ComputeCapability=SimpleNamespace(__members__={"SM86": 0, "SM120": 1}))
    older = SimpleNamespace(backend="tensorrt-rtx", module=module)
    assert capability.resolve(older, None) == (AMPERE, (12, 0))
    with pytest.raises(OptionError, match=r"1\.3 does not build for compute capability 12\.1; it knows 8\.6, 12\.0"):
        capability.resolve(older, ((12, 1),))


@pytest.mark.parametrize("devices", ["none", "no driver"])
def test_tensorrt_without_a_gpu_names_the_library_that_needs_none(monkeypatch, devices):
    from types import SimpleNamespace

    from exactile.errors import DeviceError

    def driver():
        if devices == "no driver":
            raise DeviceError("libcuda.so.1 is missing")
        return SimpleNamespace(devices=lambda: ())

    monkeypatch.setattr(capability, "open_driver", driver)
    with pytest.raises(EngineBuildError, match="take --engine tensorrt-rtx, which needs none"):
        capability.resolve(SimpleNamespace(backend="tensorrt", module=None), None)
