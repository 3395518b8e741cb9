"""The kit for a machine with a GPU and no network: parts, steps, results; and all of it rehearsed on CPython 3.12."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_kit import step_a
from benchmarks.gpu_kit.build import FOLDER, build, packed
from benchmarks.gpu_kit.collect import collect
from benchmarks.gpu_kit.harness import Check, run_step
from benchmarks.gpu_kit.installed import has_runtime, kit, receive
from benchmarks.gpu_kit.parts import LIMIT_BYTES, DamagedPartError, Manifest, archive, sha256, size_of, slices
from benchmarks.gpu_kit.wheels import MissingToolError, contents, matching_python
from tests.support.folders import ROOT
from tests.support.gpu_kit_machine import make_environment, make_machine

REHEARSAL_MINUTES = 12.0
"""All steps together, on the machine; unpacking is in it, bringing the parts there is not."""


def right(folder):
    """A check that passes, with a table."""
    return {"passed": True, "answer": np.float32(0.5), "rows": [{"a": 1, "b": "x|y"}, {"a": 2, "c": [1, 2]}]}


def wrong(folder):
    (folder / "trace.json").write_text("[]")
    return {"passed": False}


def raising(folder):
    sys.stdout.write("what it said before\n")
    raise ValueError("it did not work")


def crashing(folder):
    os.abort()


def hanging(folder):
    """Leaves a process behind that must not outlive it."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder / "child").write_text(str(child.pid))
    time.sleep(60)


def checks_of(*names, seconds=20.0):
    return [Check(name=name, function=f"tests.gpu.test_gpu_kit:{name}", seconds=seconds) for name in names]


def outcomes(record):
    return {entry["name"]: entry["outcome"] for entry in record["checks"]}


def test_a_step_records_every_outcome_and_goes_on(tmp_path):
    """Right, wrong, an exception, a crash: each is an entry, with its last words."""
    checks = checks_of("right", "wrong", "raising", "crashing")
    checks[1] = Check(name="wrong", function="tests.gpu.test_gpu_kit:wrong", seconds=20, keep=("trace.json", "missing"))
    results = tmp_path / "results"
    record = run_step("step-x", checks, results=results, folder=tmp_path / "f", minutes=2, machine={"gpus": ["G"]})
    assert outcomes(record) == {"right": "passed", "wrong": "failed", "raising": "error", "crashing": "error"}
    assert json.loads((results / "step-x.json").read_text()) == json.loads(json.dumps(record))
    assert record["checks"][0]["found"]["answer"] == 0.5
    assert "what it said before" in record["checks"][2]["log"]
    assert "ValueError: it did not work" in record["checks"][2]["log"]
    assert (results / "trace.json").read_text() == "[]"
    text = (results / "step-x.md").read_text()
    assert "1 of 4 checks passed" in text
    assert "| 1 | x\\|y |  |" in text
    assert "it did not work" in text


def test_a_check_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    """Its seconds bound it, and the step's minutes bound them all."""
    begin = time.monotonic()
    checks = [*checks_of("hanging", seconds=1.5), *checks_of("right")]
    record = run_step("step-x", checks, results=tmp_path, folder=tmp_path, minutes=1, machine={})
    assert outcomes(record) == {"hanging": "out of time", "right": "passed"}
    assert time.monotonic() - begin < 30
    child = Path("/proc", (tmp_path / "child").read_text())
    assert not child.exists() or "Z" in (child / "stat").read_text().split()[2]


def test_what_a_step_has_no_time_for_is_said(tmp_path):
    record = run_step("step-x", checks_of("right", "wrong"), results=tmp_path, folder=tmp_path, minutes=0, machine={})
    assert outcomes(record) == {"right": "not run", "wrong": "not run"}


def made_parts(folder: Path) -> tuple[Path, list[Path]]:
    """A folder that stands for ONNX Runtime, and two parts with three slices of it."""
    source = folder / "source"
    (source / "onnxruntime").mkdir(parents=True)
    (source / "onnxruntime" / "__init__.py").write_text("__version__ = '0'\n")
    (source / "onnxruntime" / "data").write_bytes(np.random.default_rng(0).bytes(3_000_001))
    archive(source, folder / "runtime.tar")
    made = slices(folder / "runtime.tar", 3, folder / "slices")
    parts = []
    for number, files in enumerate(([made[2]], [made[0], made[1]]), 1):
        part = folder / f"part-{number}"
        part.mkdir()
        for path in files:
            path.rename(part / path.name)
        hashes = {path.name: sha256(path) for path in part.iterdir()}
        Manifest(kit={"python": "3.12"}, part=number, parts=2, slices=3, files=hashes).save(part)
        parts.append(part)
    return source, parts


def test_parts_come_in_any_order_and_make_the_same_bytes(tmp_path):
    """Slices of an archive, unpacked one by one; the runtime is there when all of them came."""
    source, parts = made_parts(tmp_path)
    home = tmp_path / "home"
    assert "part 2 of 2" in receive(parts[1], home)
    receive(parts[1], home)
    assert not has_runtime(home)
    assert "is there" in receive(parts[0], home)
    assert has_runtime(home)
    assert kit(home) == {"python": "3.12"}
    for path in (source / "onnxruntime").iterdir():
        assert (home / "onnxruntime-gpu" / "onnxruntime" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", ["other bytes", "missing", "no manifest"])
def test_a_damaged_part_is_refused(damage, tmp_path):
    """The error names the file; nothing is unpacked."""
    _, (part, _) = made_parts(tmp_path)
    path = next(part.glob("*.xz"))
    if damage == "other bytes":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    elif damage == "missing":
        path.unlink()
    else:
        (part / "manifest.json").unlink()
    with pytest.raises(DamagedPartError, match=part.name if damage == "no manifest" else path.name):
        receive(part, tmp_path / "home")
    assert not has_runtime(tmp_path / "home")


def test_files_are_packed_below_the_limit(tmp_path):
    """First fit by decreasing size: none is lost, no group is too large."""
    sizes = [9, 1, 5, 5, 3, 7]
    for index, size in enumerate(sizes):
        (tmp_path / str(index)).write_bytes(b"x" * size)
    groups = packed(list(tmp_path.iterdir()), 10)
    assert sorted(len(path.read_bytes()) for group in groups for path in group) == sorted(sizes)
    assert all(sum(path.stat().st_size for path in group) <= 10 for group in groups)
    assert len(groups) == 3


def record_of(gpus):
    entry = {
        "name": "a",
        "function": "f",
        "arguments": {},
        "seconds": 1.0,
        "found": {"passed": True},
        "outcome": "passed",
    }
    return {"step": "step-a", "machine": {"gpus": gpus}, "minutes": 1, "seconds": 1.0, "checks": [entry]}


def test_results_are_made_from_a_gpus_records_alone(tmp_path):
    """A rehearsal measured nothing, so it makes no results."""
    (tmp_path / "step-a.json").write_text(json.dumps(record_of(["NVIDIA H100, 580.1"])))
    written = collect(tmp_path, tmp_path / "results")
    assert [path.name for path in written] == ["gpu-step-a.json", "gpu-step-a.md"]
    assert "NVIDIA H100" in written[1].read_text()
    for gpus in ("none: a rehearsal on an emulated driver", []):
        (tmp_path / "step-a.json").write_text(json.dumps(record_of(gpus)))
        with pytest.raises(ValueError, match="was not made on a GPU"):
            collect(tmp_path, tmp_path / "results")
    with pytest.raises(FileNotFoundError, match="no record"):
        collect(tmp_path / "results")


def rehearsed(checks, tmp_path, monkeypatch):
    """The record of these checks on the emulated driver, in this environment."""
    monkeypatch.setenv("EXACTILE_GPU_KIT_REHEARSAL", "1")
    paths = [str(ROOT / name) for name in ("runtime", "converters", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return run_step("step-x", checks, results=tmp_path, folder=tmp_path / "scratch", minutes=10, machine={})


def test_step_a_in_rehearsal(tmp_path, monkeypatch):
    """Of each kind of check one: labels by the kernel's stand-in, copies, graphs, what overlaps."""
    pytest.importorskip("pycuda")
    monkeypatch.setattr(step_a, "rehearsing", lambda: True)
    kinds = {check.function: check for check in step_a.checks() if "device_tests" not in check.function}
    record = rehearsed(kinds.values(), tmp_path, monkeypatch)
    assert set(outcomes(record).values()) == {"passed"}, (tmp_path / "step-x.md").read_text()


@pytest.mark.slow
def test_the_whole_kit_on_a_machine_without_a_network(tmp_path):
    """Built here, received there, all steps: offline, from the parts alone, in time, without this machine's files."""
    try:
        matching_python()
    except MissingToolError as error:
        pytest.skip(str(error))
    if not FOLDER.exists() or Manifest.load(FOLDER / "part-1").kit != contents():
        build()
    machine = make_machine(tmp_path / "machine", FOLDER, make_environment(tmp_path / "environment"))
    parts = sorted((machine.copy / "build" / "gpu-kit").glob("part-*"))
    assert max(map(size_of, parts)) <= LIMIT_BYTES
    begin = time.monotonic()
    received = [machine.run("receive", str(part), timeout_s=300) for part in parts]
    assert [done.returncode for done in received] == [0] * len(parts), [done.stderr for done in received]
    for step in ("step-a", "step-b", "step-c"):
        done = machine.run(step, "--results", str(machine.folder / "results"), "--minutes", "10", timeout_s=700)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
        sys.stdout.write(done.stdout)
    minutes = (time.monotonic() - begin) / 60
    assert machine.notes() == []
    assert minutes <= REHEARSAL_MINUTES
