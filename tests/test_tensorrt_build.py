"""Engines, really built by TensorRT-RTX, which needs no GPU for it; and everything that can go wrong with a build."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper

import exactile
from exactile.engines.tensorrt_library import load_tensorrt
from exactile.errors import BundleError, CancelledError, EngineBuildError, ModelError, OptionError, SinkError
from exactile.plan.strips import AxisDomain, AxisStrips
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.device import stored
from exactile_converters.device.form import strip_form, tile_form
from exactile_converters.from_onnx import load_network
from exactile_converters.tensorrt_engine import capability, engines, plan, storage, timing_cache
from exactile_converters.tensorrt_engine.engines import EngineSettings, build_engines
from exactile_converters.tensorrt_engine.monitor import Cancellation, Phases, SilentWatcher
from exactile_converters.tensorrt_engine.plan import PlanSettings, build_plan, load_library
from exactile_converters.torch_export import export_onnx
from models.fc_densenet import fc_densenet
from tests.command import exactile as command
from tests.nets import onnx_file

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

AMPERE, ADA = (8, 6), (8, 9)
NORMALIZATION = Normalization(scale=(255.0,), mean=(0.5,), std=(0.25,))


class Told(SilentWatcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.engines, self.steps, self.shares, self.notes = [], [], [], []

    def started(self, what: str) -> None:
        self.engines.append(what)

    def doing(self, step: str) -> None:
        self.steps.append(step)

    def progress(self, share: float) -> None:
        self.shares.append(share)

    def note(self, text: str) -> None:
        self.notes.append(text)


def settings(**options) -> EngineSettings:
    return EngineSettings(**{"backend": "tensorrt-rtx", "compute_capabilities": (AMPERE,), "tile": (64, 64), **options})


def plan_of(model, form, *, watcher=None, cancellation=None, **options) -> bytes:
    wanted = PlanSettings(**{"precision": "fp32", "compute_capabilities": (AMPERE,), **options})
    return bytes(build_plan(load_library("tensorrt-rtx"), model, form, wanted, watcher or Told(), cancellation))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    convert(onnx_file(folder, "unet_d2"), folder / "unet_d2", normalization=NORMALIZATION)
    return folder


@pytest.fixture
def bundle(made, tmp_path):
    """A U-Net's bundle to put engines beside."""
    return Path(shutil.copytree(made / "unet_d2", tmp_path / "unet.bundle"))


@pytest.fixture(scope="module")
def unet(made):
    return exactile.open_bundle(made / "unet_d2").model


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
    assert everywhere.compute_capabilities[:3] == ((8, 0), AMPERE, ADA)
    assert (7, 5) not in everywhere.compute_capabilities
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
    with pytest.raises(OptionError, match="has no strips: it is of half precision"):
        build_engines(tmp_path / "half", settings(strip_rows=32))


@pytest.mark.parametrize("name", ["unet_d2", "unet_transpose3_d2", "valid", "resnet_unet"])
def test_every_image_finds_the_strips_that_were_built(tmp_path, name):
    """Whatever the height, from the least one on: the plan's strips are those of the three engines."""
    model = deploy(load_network(onnx_file(tmp_path, name)), image_dtype="uint8")
    geometry, strips = model.contract.geometry, model.strips
    rows = geometry.y.stride * 3
    wanted = {each.role: each.rows for each in engines._wanted(opened_as(model), settings(tile=None, strip_rows=rows))}
    last_heights = set()
    for height in range(wanted["first"][0] + wanted["last"][0], wanted["first"][0] + wanted["last"][1] + 3 * rows):
        plan_rows = AxisStrips.of(AxisDomain.of(geometry.y, height, "model"), strips, rows)
        for role, strip in zip(plan_rows.roles, plan_rows.heights, strict=True):
            assert wanted[role][0] <= strip <= wanted[role][1]
        last_heights.add(plan_rows.heights[-1])
    assert last_heights == set(range(wanted["last"][0], wanted["last"][1] + 1, geometry.y.stride))


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


def unknown_operator(form):
    model = onnx.ModelProto()
    model.CopyFrom(form.model)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain, relu.name = "Shine", "net.example", "polish"
    model.opset_import.append(helper.make_opsetid("net.example", 1))
    return replace(form, model=model)


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
        (wrong_channels, r"tensorrt-rtx 1\.\d.* does not take the graph: at the node .*Conv.*Kernel weight dimension"),
        (described_otherwise, "understands the graph otherwise than it is meant: .*float32"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compute_capabilities": ((8, 7),)}, r"does not build for compute capability 8\.7; it knows 7\.5, 8\.0, 8\.6"),
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


class StopsAt(Told):
    """Calls ``stop`` when a build has made some progress."""

    def __init__(self, stop) -> None:
        super().__init__()
        self._stop, self._stopped = stop, False

    def progress(self, share: float) -> None:
        super().progress(share)
        if share > 0.1 and not self._stopped:
            self._stopped = True
            self._stop()


def test_a_cancelled_build_leaves_nothing(bundle):
    cancellation = Cancellation()
    told = StopsAt(cancellation.cancel)
    with pytest.raises(CancelledError, match="the build was stopped; no engine was written"):
        build_engines(bundle, settings(), watcher=told, cancellation=cancellation)
    assert told.shares[-1] < 1
    assert not (bundle / "engines").exists()
    with pytest.raises(CancelledError):
        build_engines(bundle, settings(), cancellation=cancellation)


def test_ctrl_c_stops_a_build_and_leaves_nothing(bundle):
    told = StopsAt(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle, settings(), watcher=told)
    assert not (bundle / "engines").exists()


def test_a_watcher_that_fails_stops_the_build(bundle):
    def fail():
        raise RuntimeError("the terminal is gone")

    with pytest.raises(CancelledError):
        build_engines(bundle, settings(), watcher=StopsAt(fail))


def test_phases_within_phases_become_one_share_that_never_falls():
    shares = []
    phases = Phases(shares.append)
    phases.start("all", None, 2)
    phases.start("inner", "all", 4)
    for step in range(4):
        phases.step("inner", step)
    phases.finish("inner")
    phases.step("all", 0)
    phases.start("inner", "all", 2)
    phases.step("inner", 0)
    phases.step("nobody", 0)
    phases.finish("inner")
    phases.finish("all")
    phases.finish("all")
    assert shares == sorted(shares)
    assert shares[:4] == [0.125, 0.25, 0.375, 0.5]
    assert shares[-1] == 1.0


BUILD_LIMITED = """
import resource, sys
from exactile.errors import SinkError
from exactile_converters.tensorrt_engine.engines import EngineSettings, build_engines
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    build_engines(sys.argv[1], EngineSettings(backend="tensorrt-rtx", compute_capabilities=((8, 6),), tile=(64, 64)))
except SinkError as error:
    print(error)
"""


def test_a_full_disk_is_an_error_and_leaves_nothing(bundle):
    """No file may grow beyond 100 kB: what a full disk looks like."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD_LIMITED, bundle, "100000"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("cannot write ")
    assert "File too large" in done.stdout
    assert list((bundle / "engines").iterdir()) == []
    assert exactile.open_bundle(bundle).model.engines_refused == ()


def test_a_folder_that_cannot_be_written_is_an_error(bundle, tmp_path):
    (bundle / "engines").write_text("in the way")
    with pytest.raises(SinkError, match="cannot make the folder"):
        build_engines(bundle, settings())
    (bundle / "engines").unlink()
    (tmp_path / "elsewhere").mkdir()
    (bundle / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SinkError, match="a link that leads out of the bundle"):
        build_engines(bundle, settings())
    assert list((tmp_path / "elsewhere").iterdir()) == []


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


def test_rtx_says_that_it_keeps_no_timings(bundle, tmp_path):
    told = Told()
    build_engines(bundle, settings(timing_cache=tmp_path / "timings"), watcher=told)
    assert "measures nothing when it builds" in told.notes[0]
    assert not (tmp_path / "timings").exists()


BUILD_AS_TENSORRT = r"""
import pathlib, sys, types, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a timing cache in TensorRT-RTX
import tensorrt_rtx
sys.modules["tensorrt"] = tensorrt_rtx
from exactile_converters.tensorrt_engine import capability
from exactile_converters.tensorrt_engine.engines import EngineSettings, build_engines
from exactile_converters.tensorrt_engine.monitor import SilentWatcher

gpu = types.SimpleNamespace(compute_capability=(8, 6))
capability.open_driver = lambda: types.SimpleNamespace(devices=lambda: (gpu,))

class Told(SilentWatcher):
    def note(self, text):
        print("note", text)

cache = pathlib.Path(sys.argv[2])
settings = EngineSettings(backend="tensorrt", tile=(64, 64), precision="fp16", timing_cache=cache, rebuild=True)
for outcome in build_engines(sys.argv[1], settings, watcher=Told()):
    print(outcome.state, outcome.engine.plan.name)
"""


def test_the_way_of_tensorrt_with_a_timing_cache_on_a_stand_in(bundle, tmp_path):
    """TensorRT-RTX under TensorRT's name: the calls are those of TensorRT, with a timing cache."""
    cache = tmp_path / "timings"

    def build() -> str:
        arguments = [sys.executable, "-c", BUILD_AS_TENSORRT, bundle, cache]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout

    said = build()
    assert said.startswith("built tile-64x64-fp16-sm86-trt1.")
    assert cache.stat().st_size > 100
    cache.write_bytes(b"of another version")
    said = build()
    assert "note the timing cache" in said
    assert "cannot be used, a new one is begun: " in said
    assert "replaced tile" in said
    assert cache.read_bytes() != b"of another version"


class FakeConfig:
    """A timing cache that fits, of which nothing is logged."""

    def __init__(self, *, fits: bool) -> None:
        self.fits, self.set = fits, []

    def create_timing_cache(self, data: bytes) -> bytes:
        return data or b"empty"

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        if cache != b"empty" and not self.fits:
            return False
        self.set.append(cache)
        return True


@pytest.mark.parametrize("fits", [True, False])
def test_a_timing_cache_that_fits_is_used(tmp_path, fits):
    (tmp_path / "timings").write_bytes(b"measured")
    config, notes = FakeConfig(fits=fits), []
    timing_cache.use_timing_cache(load_library("tensorrt-rtx"), config, tmp_path / "timings", notes.append)
    assert config.set == [b"measured" if fits else b"empty"]
    assert len(notes) == (0 if fits else 1)


def test_a_timing_cache_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(OptionError, match="cannot be read: Is a directory"):
        timing_cache.use_timing_cache(load_library("tensorrt-rtx"), FakeConfig(fits=True), tmp_path, print)


def test_a_half_written_file_is_never_seen(tmp_path, monkeypatch):
    path = tmp_path / "x.plan"
    path.write_bytes(b"before")

    def fail(_descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(SinkError, match=r"cannot write .*x\.plan \(5 bytes\): No space left on device"):
        storage.write_whole(path, memoryview(b"after"))
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.plan"]


def test_the_command_builds_beside_a_new_bundle_and_beside_one_that_is_there(tmp_path):
    model, target = onnx_file(tmp_path, "unet_d1"), tmp_path / "unet.bundle"
    rtx = ("--engine", "tensorrt-rtx", "--compute-capability", "8.6,8.9")
    made = command("convert", model, "-o", target, "--tile", "64x96", *rtx, "--workspace", "1GiB")
    assert made.returncode == 0, made.stderr
    said = " ".join(made.stdout.split())
    assert "engine fp32 tile, 64 x 96 pixels, tensorrt-rtx 1." in said
    assert "compute capability 8.6, 8.9" in said
    assert "0 of 6144 labels differ" in said
    more = command("convert", target, *rtx, "--engine-precision", "fp16", "--strip-rows", "16", "--json")
    assert more.returncode == 0, more.stderr
    data = json.loads(more.stdout)
    assert sorted((engine["role"], engine["precision"]) for engine in data["engines"]) == [
        ("body", "fp16"),
        ("first", "fp16"),
        ("last", "fp16"),
        ("tile", "fp16"),
        ("tile", "fp32"),
    ]
    again = command("convert", target, *rtx, "--workspace", "1GiB")
    assert "up to date" in again.stdout
    assert "engine fp16 last strip, 2 to 16 x 4096 pixels" in " ".join(command("info", target).stdout.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("BUNDLE",), "is a bundle already; --engine tensorrt or tensorrt-rtx builds engines for it"),
        (("BUNDLE", "--engine", "tensorrt-rtx", "-o", "other"), "engines lie beside the bundle"),
        (("BUNDLE", "--engine", "tensorrt-rtx", "--scale", "255", "--classes", "a,b"), "--classes, --scale would make"),
        (
            ("BUNDLE", "--engine", "tensorrt-rtx", "--precision", "fp16"),
            "the precision of engines is --engine-precision",
        ),
        (("BUNDLE", "--engine", "tensorrt-rtx", "--compute-capability", "ampere"), "numbers such as 8.6 or 8.6,8.9"),
        (("BUNDLE", "--engine", "tensorrt-rtx", "--workspace", "much"), "--workspace takes an amount such as 2GiB"),
        (("x.onnx", "-o", "y", "--batch", "2", "--strip-rows", "8"), "--batch, --strip-rows: for engines alone; add"),
        (("x.onnx",), "say where the bundle is to be: -o BUNDLE"),
        (
            ("x.onnx", "-o", "y", "--engine", "tensorrt-rtx", "--compute-capability", "9.9"),
            "does not build for compute",
        ),
    ],
)
def test_options_at_odds_are_refused_before_anything_is_done(bundle, tmp_path, arguments, message):
    arguments = [bundle if argument == "BUNDLE" else argument for argument in arguments]
    done = command("convert", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (bundle / "engines").exists()


def test_a_bundle_whose_engines_failed_is_there(tmp_path):
    model, target = onnx_file(tmp_path, "unet_d1"), tmp_path / "unet.bundle"
    done = command("convert", model, "-o", target, "--engine", "tensorrt-rtx", "--workspace", "1")
    assert done.returncode == 2
    assert "give more with --workspace" in done.stderr
    assert "was written before, and can be used" in done.stderr
    assert exactile.open_bundle(target).model.engines == ()
