"""``exactile doctor``: what it says of a machine without a GPU, of an emulated one, and of broken ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import exactile
from exactile.bundle.engine_file import EngineFile, TensorPart, encode_engine_file, model_digest
from exactile.cuda.ordinals import parse_devices
from exactile.doctor import driver
from exactile.doctor.examination import Examination
from exactile.doctor.finding import Finding
from exactile.doctor.isolation import Isolation
from exactile.doctor.overlap import overlap_of
from exactile.doctor.privacy import Redaction
from exactile.doctor.report import Report, as_text, report_schema
from exactile.doctor.small_network import FOLDER, bundle_path, difference
from exactile.errors import OptionError
from exactile.pipeline.timing import TimeSpan
from tests.support import cuda_stand_ins
from tests.support.command import exactile as command
from tests.support.doctor_stand_ins import built_engines, prepare
from tests.support.folders import ROOT

FULL = {"gpus": 1, "onnxruntime": "cuda", "tensorrt": True}


def examined(*arguments: object) -> tuple[int, dict]:
    """Exit status and report; nothing but the report is on stdout, and nothing on stderr."""
    done = command("doctor", *arguments, "--json")
    assert done.stderr == ""
    report = json.loads(done.stdout)
    jsonschema.validate(report, report_schema())
    return done.returncode, report


def by_check(report: dict) -> dict[str, dict]:
    return {f"{finding['group']} {finding['check']}": finding for finding in report["findings"]}


def isolated(check: str, *, limit_s: float = 30.0, **arguments) -> list[Finding]:
    return Isolation(limit_s=limit_s).run(check, group="gpu", name="it", **arguments)


# --- without a GPU


@pytest.fixture(scope="module")
def without_gpu(tmp_path_factory):
    """A machine without a driver: exit status and report of ``--device cuda:0``."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        prepare(monkeypatch, tmp_path_factory.mktemp("site"))
        return examined("--device", "cuda:0")


def test_a_gpu_that_is_asked_for_and_not_there_is_status_1_with_the_reason(without_gpu):
    status, report = without_gpu
    assert status == 1
    assert not report["works"]
    assert report["verdict"].startswith("--device cuda:0 does NOT work here: cuda:0 cannot be used. There is no NVIDIA")


def test_what_has_nothing_to_do_with_gpus_is_found_all_the_same(without_gpu):
    found = by_check(without_gpu[1])
    assert found["machine system"]["facts"]["exactile"] == exactile.__version__
    assert found["machine memory"]["facts"]["total_bytes"] > 1 << 28
    assert found["machine cpu"]["facts"]["usable_cores"] >= 1
    assert found["packages numpy"]["facts"]["version"] == np.__version__
    assert found["results cpu"]["status"] == "ok"
    assert found["results cpu"]["facts"]["differing_from_recorded"] == 0
    assert found["gpu driver"]["status"] == "not applicable"
    assert found["engines tensorrt"]["status"] == "not applicable"
    assert not any(check.startswith("overlap") for check in found)


def test_the_text_says_what_json_says_within_a_width_and_names_nobody(without_gpu):
    report = without_gpu[1]
    text = as_text(Report(**{**report, "findings": tuple(Finding(**each) for each in report["findings"])}))
    lines = text.splitlines()
    assert lines[0] == f"exactile {exactile.__version__} doctor, --device cuda:0"
    assert max(map(len, lines)) <= 110
    words = " ".join(text.split())
    for finding in report["findings"]:
        assert " ".join(finding["says"].split()) in words
    assert " ".join(report["verdict"].split()) in words
    assert str(Path.home()) not in text


def test_on_the_cpu_gpus_are_not_looked_at_and_it_works(monkeypatch, tmp_path):
    """Even a driver that crashes does not matter then."""
    prepare(monkeypatch, tmp_path, crash="driver")
    done = command("doctor", "--device", "cpu")
    assert done.returncode == 0, done.stdout
    assert "GPUs were not checked: --device cpu was given." in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-1] == "exactile works here, on the CPU."


def test_a_device_that_is_none_is_refused():
    done = command("doctor", "--device", "tpu:0")
    assert done.returncode == OptionError.exit_status
    assert "--device takes cpu, auto, cuda, cuda:0" in done.stderr


def test_the_published_schema_is_the_codes():
    assert json.loads((ROOT / "docs" / "doctor.schema.json").read_text()) == report_schema()


def test_a_build_of_onnxruntime_in_another_folder_is_no_failure(monkeypatch, tmp_path):
    """As by ``pip install --target`` and PYTHONPATH: the first one runs, and which that is, is said."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("__version__ = '1.31.1'")
    (tmp_path / "onnxruntime_gpu-1.31.1.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n"
    (tmp_path / "onnxruntime_gpu-1.31.1.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "runtime"), str(tmp_path)]))
    found = isolated("packages")[-1]
    assert (found.check, found.status) == ("onnxruntime", "ok")
    assert "onnxruntime-gpu is what runs" in found.says


def test_the_doctor_says_which_file_each_cuda_library_is(monkeypatch, tmp_path):
    """With small libraries in place of CUDA's, and no session: the libraries are a finding of their own."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc builds the libraries that stand in for CUDA's")
    needed = cuda_stand_ins.cuda_libraries(tmp_path / "base" / "nvidia" / "cu13" / "lib")
    driver = cuda_stand_ins.driver(tmp_path / "driver")
    cudnn = cuda_stand_ins.cudnn(tmp_path / "base" / "nvidia" / "cudnn" / "lib", 13)
    cuda_stand_ins.onnxruntime_gpu(tmp_path / "ort", [*needed, driver])
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [tmp_path / "ort", tmp_path / "base", ROOT / "runtime"])))
    found = {each.check: each for each in isolated("providers", ordinal=0)}
    assert found["cuda-libraries"].facts["libcudnn.so.9"] == {"path": str(cudnn), "source": "Python's nvidia packages"}
    assert f"libcudnn.so.9 from {cudnn.parent} (Python's nvidia packages)" in found["cuda-libraries"].says


def test_a_container_that_shows_the_device_file_alone_has_hardware(monkeypatch, tmp_path):
    """Such as those without /sys and /proc of the host."""
    monkeypatch.setattr(driver, "PCI_DEVICES", tmp_path / "none")
    monkeypatch.setattr(driver, "DEVICE_NODE", tmp_path / "nvidiactl")
    assert not driver.nvidia_hardware()
    driver.DEVICE_NODE.touch()
    assert driver.nvidia_hardware()


@pytest.mark.parametrize(
    ("listed", "name"), [(None, "1"), ("", "1"), ("2,3", "3"), ("GPU-8a, MIG-7b", "MIG-7b"), ("5", "1")]
)
def test_one_gpu_alone_is_asked_for_by_the_name_that_cuda_visible_devices_gives_it(monkeypatch, listed, name):
    """Ordinals count what that variable lists."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    found = {"driver": [gpu(0), gpu(1, (8, 9))], "tensorrt": [engine("tensorrt")]}
    examination = Examination(choice="all", isolation=CannedIsolation(**found), findings=[])
    examination.run(None)
    other = next(each for each in examination.findings if each.check == "cuda:1 tensorrt")
    assert other.remedy.startswith(f"CUDA_VISIBLE_DEVICES={name} exactile doctor")


# --- with an emulated GPU


def test_every_engine_runs_on_an_emulated_gpu_and_overlap_is_measured(monkeypatch, tmp_path):
    """Copies that take as long as inferences are hidden behind them for the most part."""
    prepare(monkeypatch, tmp_path, **FULL, durations={"copy_in": 0.006, "compute": 0.006, "copy_out": 0.006})
    status, report = examined("--device", "cuda:0")
    assert status == 0, report["verdict"]
    assert report["verdict"] == "exactile works here, on cuda:0 and on the CPU."
    found = by_check(report)
    assert found["gpu cuda:0"]["facts"]["compute_capability"] == [8, 6]
    assert found["engines onnxruntime-cuda"]["facts"]["session"][0] == "CUDAExecutionProvider"
    for engine in ("onnxruntime", "tensorrt:fp32", "tensorrt:fp16"):
        for plan in ("tiles", "strips"):
            facts = found[f"results cuda:0 {engine} {plan}"]["facts"]
            assert facts["differing_labels"] == 0
            assert facts["largest_difference_of_scores"] <= 1e-3
            assert facts["times_as_fast"] > 0
            overlap = found[f"overlap cuda:0 {engine} {plan}"]["facts"]
            assert overlap["loads"] > 5
            assert 0 < overlap["bottleneck_busy_share"] <= 1
    assert found["overlap cuda:0 tensorrt:fp32 tiles"]["facts"]["copies_hidden_share"] > 0.5


def test_wrong_labels_of_an_engine_are_a_failure_with_what_to_do(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path, **FULL, wrong=["onnxruntime"])
    wrong = [each for each in isolated("onnxruntime on a GPU", device="cuda:0") if each.group == "results"]
    assert [each.status for each in wrong] == ["failed", "failed"]
    assert all(each.facts["differing_labels"] > 0 and "do not use this engine" in each.remedy for each in wrong)


def test_onnx_runtime_without_cuda_is_told_with_what_to_install(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path, gpus=1)
    (found,) = isolated("providers", ordinal=0)
    assert found.status == "warning"
    assert "CUDA" not in found.facts["built_in"]
    assert "pip uninstall --yes onnxruntime, then pip install 'exactile[gpu]'" in found.says


def test_without_the_converter_tensorrt_is_not_tried_and_why(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path)
    (tmp_path / "onnx.py").write_text("raise ModuleNotFoundError('no onnx', name='onnx')\n")
    arguments = {"device": "cuda:0", "backend": "tensorrt", "precision": "fp32", "compute_capability": [8, 6]}
    (found,) = isolated("tensorrt on a GPU", **arguments)
    assert (found.check, found.status) == ("cuda:0 tensorrt:fp32", "not applicable")
    assert found.says == "tensorrt was not tried: building an engine needs onnx."
    assert found.remedy.startswith("pip install 'exactile[convert]'")


# --- what follows from findings


class CannedIsolation:
    """Finds what it was given, by check."""

    def __init__(self, **found: list[Finding]) -> None:
        self.found = found
        self.asked: list[tuple[str, str]] = []

    def run(self, check: str, *, group: str, name: str, **_arguments) -> list[Finding]:
        self.asked.append((check, name))
        return self.found.get(check.replace(" ", "_"), [])


def gpu(ordinal: int, capability: tuple[int, int] = (8, 6)) -> Finding:
    facts = {
        "ordinal": ordinal,
        "name": "GPU",
        "compute_capability": list(capability),
        "total_bytes": 1,
        "free_bytes": 1,
    }
    return Finding(group="gpu", check=f"cuda:{ordinal}", status="ok", says="A GPU.", facts=facts)


def engine(name: str, status="ok", says="It is there.") -> Finding:
    return Finding(group="engines", check=name, status=status, says=says)


def result(check: str, status="ok") -> Finding:
    return Finding(group="results", check=check, status=status, says=f"{check}.", facts={"processor": "GPU"})


def verdict(device: str, **found: list[Finding]) -> tuple[bool, str, list[tuple[str, str]]]:
    isolation = CannedIsolation(**found)
    examination = Examination(choice=parse_devices(device), isolation=isolation, findings=[])
    examination.run(None)
    return *examination.verdict(device), isolation.asked


NO_CUDA = [engine("onnxruntime-cuda", "warning", "ONNX Runtime was built with CPU.")]


def test_rtx_is_not_tried_on_a_gpu_that_it_does_not_run_on():
    """On an H100 it is said what runs there; what does run is tried."""
    found = {
        "driver": [gpu(0, (9, 0))],
        "providers": [engine("onnxruntime-cuda")],
        "tensorrt": [engine("tensorrt-rtx")],
    }
    isolation = CannedIsolation(**found)
    examination = Examination(choice=parse_devices("cuda:0"), isolation=isolation, findings=[])
    examination.run(None)
    rtx = next(each for each in examination.findings if each.check == "cuda:0 tensorrt-rtx")
    assert rtx.status == "not applicable"
    assert "does not run on cuda:0 (GPU) of compute capability 9.0" in rtx.says
    assert "--engine onnxruntime" in rtx.remedy
    assert [check for check, _ in isolation.asked if "on a GPU" in check] == ["onnxruntime on a GPU"]


def test_a_gpu_without_an_engine_is_left_alone_by_auto():
    works, said, asked = verdict("auto", driver=[gpu(0), gpu(1)], providers=NO_CUDA)
    assert works
    assert said == "exactile works here, on the CPU and on no GPU. ONNX Runtime was built with CPU."
    assert not any("on a GPU" in check for check, _ in asked)


@pytest.mark.parametrize("device", ["cuda:0", "cuda", "cuda:0,cuda:1", "cuda:all"])
def test_a_gpu_without_an_engine_that_is_asked_for_does_not_work(device):
    works, said, _ = verdict(device, driver=[gpu(0), gpu(1)], providers=NO_CUDA)
    assert not works
    assert said.endswith("cannot be used. ONNX Runtime was built with CPU.")


def test_every_gpu_that_is_asked_for_must_give_right_results():
    found = {"driver": [gpu(0), gpu(1)], "providers": [engine("onnxruntime-cuda")]}
    right = {"onnxruntime_on_a_GPU": [result("cuda:0 onnxruntime tiles")]}
    assert verdict("cuda:0", **found, **right)[0]
    works, said, _ = verdict("cuda:0,cuda:1", **found, **right)
    assert not works
    assert said == "--device cuda:0,cuda:1 does NOT work here: cuda:1 cannot be used. No engine runs on it."


def test_a_gpu_that_is_not_there_is_named_with_those_that_are():
    works, said, _ = verdict("cuda:3", driver=[gpu(0)], providers=[engine("onnxruntime-cuda")])
    assert not works
    assert "cuda:3 was requested, and the GPUs here are cuda:0 (GPU)." in said


def test_wrong_results_are_the_reason_why_a_gpu_does_not_work():
    found = {"driver": [gpu(0)], "providers": [engine("onnxruntime-cuda")]}
    wrong = {"onnxruntime_on_a_GPU": [result("cuda:0 onnxruntime tiles", "failed")]}
    works, said, _ = verdict("cuda:0", **found, **wrong)
    assert not works
    assert said.endswith("cuda:0 cannot be used. cuda:0 onnxruntime tiles.")


def test_tensorrt_is_not_built_for_another_kind_of_gpu_than_the_first():
    found = {"driver": [gpu(0), gpu(1, (12, 0))], "tensorrt": [engine("tensorrt")]}
    _, _, asked = verdict("auto", **found)
    assert {name for check, name in asked if check == "tensorrt on a GPU"} == {
        "cuda:0 tensorrt:fp32", "cuda:0 tensorrt:fp16"
    }  # fmt: skip


# --- single checks


def test_two_distributions_of_onnx_runtime_are_a_failure(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path)
    for name, version in (("onnxruntime", "1.30.0"), ("onnxruntime-gpu", "1.31.1")):
        fake = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        fake.mkdir()
        (fake / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    found = isolated("packages")[-1]
    assert (found.check, found.status) == ("onnxruntime", "failed")
    assert "onnxruntime-gpu 1.31.1 are both installed" in found.says
    assert found.remedy.startswith("pip uninstall --yes onnxruntime onnxruntime-gpu, then pip install")


def test_packages_that_are_broken_or_not_there(monkeypatch, tmp_path):
    """A needed one that raises when it is imported has failed, an optional one is a warning, or not installed."""
    prepare(monkeypatch, tmp_path)
    (tmp_path / "imagecodecs.py").write_text("raise OSError('libz.so.1: cannot open shared object file')\n")
    (tmp_path / "openslide.py").write_text("raise OSError('libopenslide.so.1: cannot open shared object file')\n")
    found = {finding.check: finding for finding in isolated("packages")}
    assert found["imagecodecs"].status == "failed"
    assert "libz.so.1: cannot open shared object file" in found["imagecodecs"].says
    assert found["openslide-python"].status == "warning"
    assert found["openslide-python"].remedy == "pip install 'exactile[slides]'"


def test_a_check_that_hangs_is_stopped_with_all_it_started(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path, hang="driver")
    began = time.monotonic()
    (found,) = isolated("driver", limit_s=2)
    assert time.monotonic() - began < 12
    assert found.status == "failed"
    assert found.says == "Using the driver: it was stopped after 2 s."
    assert "--time-limit" in found.remedy


def test_a_check_that_crashes_is_a_failure_with_what_it_was_doing(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path, crash="tensorrt on a GPU")
    (found,) = isolated("tensorrt on a GPU")
    assert found.status == "failed"
    assert found.says == "Using the driver: the process was ended by SIGSEGV."
    assert "crashed" in found.remedy


def test_a_library_that_ends_the_process_is_quoted(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path, exit="providers")
    (found,) = isolated("providers", ordinal=None)
    assert found.status == "failed"
    assert "ended with status 3, and said: terminate called after throwing an instance of 'cudaError'" in found.says


def test_an_unexpected_exception_is_a_failure_that_names_no_folder(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path, **{"raise": "driver"})
    (found,) = isolated("driver")
    assert found.status == "failed"
    says = Redaction().text(found.says)
    assert says == "RuntimeError: no such thing in ~/secret/file."


def test_python_that_cannot_be_started_is_a_failure(monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    (found,) = isolated("driver")
    assert found.status == "failed"


def test_ctrl_c_stops_the_check_that_is_running(monkeypatch, tmp_path):
    """The child is in a group of its own, which a terminal does not reach."""
    prepare(monkeypatch, tmp_path, hang="packages")
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # under nohup and cron it is ignored
    running = subprocess.Popen(
        [sys.executable, "-m", "exactile", "doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed,  # noqa: PLW1509
    )
    child = _child_of(running.pid)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert said.startswith("error: stopped")
    assert _ends(child)


def _ends(pid: str) -> bool:
    """Whether a process ends soon; one whose parent is gone may stay in the table of processes."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def _child_of(pid: int) -> str:
    """The child, once it is there. Linux only, as the emulation."""
    for _ in range(600):
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return children[0]
        time.sleep(0.05)
    raise AssertionError("no check was started")


# --- a bundle


@pytest.fixture
def bundle(tmp_path):
    """A copy of a small bundle, with engines of the stand-in for tiles and strips, and four that do not fit."""
    path = Path(shutil.copytree(bundle_path("labels"), tmp_path / "my.bundle"))
    opened, folder = exactile.open_bundle(path), path / "engines"
    folder.mkdir()
    for built in built_engines(opened.model, folder, "tensorrt"):
        sidecar(opened, built, built.role)
        if built.role == "tile":
            sidecar(opened, built, "other-gpu", compute_capabilities=((12, 0),))
            sidecar(opened, built, "other-version", backend_version="10.3.0")
            sidecar(opened, built, "other-backend", backend="tensorrt-rtx")
            sidecar(opened, built, "other-model", model_sha256="0" * 64)
    return path


def sidecar(opened, built, name: str, **changed) -> None:
    """The file beside an engine, whose plan is a copy of that of ``built``."""
    plan = built.plan.with_name(f"{name}.plan")
    if plan != built.plan:
        shutil.copyfile(built.plan, plan)
    said = {
        **{part: getattr(built, part) for part in ("backend", "backend_version", "precision", "role", "batch")},
        **{part: getattr(built, part) for part in ("rows", "columns", "plan_bytes", "plan_sha256")},
        "compute_capabilities": built.compute_capabilities,
        "inputs": {key: TensorPart(shape=spec.shape, dtype=spec.dtype) for key, spec in built.inputs.items()},
        "outputs": {key: TensorPart(shape=spec.shape, dtype=spec.dtype) for key, spec in built.outputs.items()},
        "model_sha256": model_digest(opened.file),
        **changed,
    }
    file = EngineFile(
        format="exactile.engine",
        version=1,
        made_by="test",
        plan=plan.name,
        onnx_sha256="0" * 64,
        workspace_bytes=None,
        optimization_level=None,
        **said,
    )
    plan.with_suffix(".json").write_bytes(encode_engine_file(file))


def test_a_bundles_engines_fit_or_not_and_those_that_fit_are_run(monkeypatch, tmp_path, bundle):
    prepare(monkeypatch, tmp_path, **FULL)
    gpu = {"ordinal": 0, "name": "Emulated GPU", "compute_capability": [8, 6], "total_bytes": 1 << 28}
    found = isolated("bundle", path=str(bundle), gpus=[gpu], cuda=True)
    fits = {each.facts["plan"]: each for each in found if each.check == "cuda:0 engine"}
    assert {name for name, each in fits.items() if each.facts["fits"]} == {
        "tile.plan", "first.plan", "body.plan", "last.plan"
    }  # fmt: skip
    for name, reason in (
        ("other-gpu.plan", "built for compute capability 12.0, and cuda:0 (Emulated GPU) has 8.6"),
        ("other-version.plan", "built by tensorrt 10.3.0, and 11.4.0.106 is installed"),
        ("other-backend.plan", "whose Python module tensorrt_rtx cannot be imported"),
    ):
        assert reason in fits[name].says
        assert fits[name].status == "warning"
        assert "exactile convert my.bundle --engine tensorrt" in fits[name].remedy
    assert any("other-model" in each.says and "another model" in each.says for each in found)
    ran = {each.check: each.status for each in found if "processor" in each.facts}
    devices = ("cpu", "cuda:0")
    samples = {f"{device} sample in {plan}": "ok" for device in devices for plan in ("one pass", "strips")}
    assert ran == samples | {"cuda:0 tensorrt:fp32 tiles": "ok", "cuda:0 tensorrt:fp32 strips": "ok"}


def test_a_damaged_bundle_is_status_1_by_its_name_alone(monkeypatch, tmp_path, bundle):
    prepare(monkeypatch, tmp_path)
    with (bundle / "weights.bin").open("r+b") as file:
        file.write(b"spoilt")
    status, report = examined(bundle, "--device", "cpu")
    assert status == 1
    assert report["bundle"] == "my.bundle"
    found = by_check(report)["bundle files"]
    assert found["says"].startswith("my.bundle/weights.bin is not the file that was converted")
    assert str(tmp_path) not in json.dumps(report)


# --- parts


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_are_really_built_for_the_shapes_that_are_run(precision, tmp_path, monkeypatch):
    """By TensorRT-RTX, which needs no GPU for that: tiles and strips of the test image have their engines."""
    pytest.importorskip("tensorrt_rtx")
    from exactile.doctor import converter, small_network
    from exactile.plan.built import built_plans

    monkeypatch.setattr(converter, "bundle_names", ("labels",))
    models = converter.with_small_engines(tmp_path, "tensorrt-rtx", precision, (8, 6))
    engines = models["labels"].engines
    assert {engine.precision for engine in engines} == {precision}
    assert {engine.compute_capabilities for engine in engines} == {((8, 6),)}
    size = small_network.noise_image().shape[:2]
    plans = {plan.name: plan.tile_shape for plan in built_plans(models["labels"], size, "model", engines)}
    assert plans["tile"] == small_network.shape_of("tile")
    assert plans["strip"][1] == small_network.IMAGE_PX


def test_the_shipped_bundles_are_small_and_whole():
    for name in ("labels", "scores"):
        opened = exactile.open_bundle(bundle_path(name))
        assert opened.model.strips is not None
        labels = opened.sample_result if name == "labels" else opened.sample_result.argmax(0)
        assert len(np.unique(labels)) == 3
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 220_000


def spans(*works: tuple[str, float, float]) -> list[TimeSpan]:
    names = {"in": "copy in", "compute": "infer", "out": "copy out"}
    return [TimeSpan(f"cuda:0 {name}", names[name], begin, end) for name, begin, end in works]


def test_overlap_by_hand():
    """Copies in 0-2 and 2-4, out 5-6; the network 3-5: of 5 s of copies 1 s is hidden, within 6 s."""
    found = overlap_of(spans(("in", 0, 2), ("in", 2, 4), ("compute", 3, 5), ("out", 5, 6)))
    assert found is not None
    assert (found.wall_s, found.copies_s, found.hidden_s, found.loads) == (6, 5, 1, 1)
    assert (found.bottleneck, found.busy_share, found.hidden_share) == ("copy in", 4 / 6, 1 / 5)


def test_copies_in_and_out_at_the_same_time_count_once():
    found = overlap_of(spans(("in", 0, 4), ("out", 2, 6), ("compute", 1, 3)))
    assert found is not None
    assert (found.copies_s, found.hidden_s) == (6, 2)


def test_there_is_no_overlap_to_tell_of_a_cpu():
    assert overlap_of([TimeSpan("cpu", "infer", 0, 1)]) is None


def test_a_result_that_is_not_a_number_differs_infinitely():
    expected = np.ones((2, 3, 4), np.float32)
    found = expected.copy()
    found[0, 1, 1] = np.nan
    assert difference(expected, found).max_abs == float("inf")
    assert difference(expected, expected).relative == 0


def test_names_of_users_hosts_and_folders_are_replaced(monkeypatch):
    monkeypatch.setenv("HOME", "/srv/people/jdoe")
    monkeypatch.setenv("LOGNAME", "jdoe")
    monkeypatch.setattr("socket.gethostname", lambda: "lab-server-7")
    redaction = Redaction({"/data/secret/project/my.bundle": "my.bundle"})
    for text, expected in (
        ("/srv/people/jdoe/venv/lib/x.so is missing", "~/venv/lib/x.so is missing"),
        ("/home/else/x and /Users/other/y", "~/x and ~/y"),
        ("/scratch/jdoe/cache", "/scratch/USER/cache"),
        ("lab-server-7: no GPU", "HOST: no GPU"),
        ("/data/secret/project/my.bundle/weights.bin", "my.bundle/weights.bin"),
        ("/srv/people/jdoe2/x", "/srv/people/jdoe2/x"),
        ("CUDA 13.0, cuda:0", "CUDA 13.0, cuda:0"),
    ):
        assert redaction.text(text) == expected
    assert redaction.data({"a": ["/home/x/y", 1, None]}) == {"a": ["~/y", 1, None]}
