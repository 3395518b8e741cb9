"""The GPU kit's steps B and C: their checks find what is wrong, and their figures are what they are called."""

from __future__ import annotations

import inspect
import os
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from benchmarks.gpu_kit import step_b, step_c
from benchmarks.gpu_kit.child import named
from benchmarks.gpu_kit.correctness.plans import ONE_PASS, compared, largest_difference
from benchmarks.gpu_kit.correctness.reference import Reference
from benchmarks.gpu_kit.device_memory import sampler
from benchmarks.gpu_kit.figures.torch_peers import Blended, Tiled, segment
from benchmarks.gpu_kit.figures.traced import shares
from benchmarks.gpu_kit.harness import Check, run_step
from benchmarks.gpu_kit.pictures import jpeg_tiff, picture
from benchmarks.gpu_kit.rehearsal import VARIABLE
from tests.support.folders import ROOT


@pytest.mark.parametrize("step", [step_b, step_c])
def test_every_check_names_a_function_that_takes_its_arguments(step, monkeypatch):
    """In full and in rehearsal, with names of their own, and JSON for arguments."""
    for rehearsal in ("0", "1"):
        monkeypatch.setenv(VARIABLE, rehearsal)
        checks = step.checks()
        assert len({check.name for check in checks}) == len(checks)
        for check in checks:
            inspect.signature(named(check.function)).bind(**check.arguments, folder=Path())


def scores(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 40, 50)).astype(np.float32)


def row_of(maps, labels, name="U-Net 16") -> dict:
    expected = Reference(maps=scores())
    results = {ONE_PASS: scores(), "tiles": maps}
    return compared(name, "tiles", results, {ONE_PASS: expected.labels, "tiles": labels}, expected)


def test_rounding_is_right_and_a_wrong_pixel_is_not():
    """One value or one label that is wrong beyond ties fails; a label at a tie does not."""
    right, labels = scores(), Reference(maps=scores()).labels
    assert row_of(right + np.float32(1e-6), labels)["right"]
    wrong = right.copy()
    wrong[1, 7, 9] += 0.01
    assert not row_of(wrong, labels)["right"]
    other = labels.copy()
    other[7, 9] = (other[7, 9] + 1) % 3
    found = row_of(right, other)
    assert found["labels, CPU"] == found["labels, one pass"] == 1
    assert not found["right"]
    tied = scores()
    tied[:, 7, 9] = [0.5, 0.5 + 1e-7, -1]
    expected = Reference(maps=tied)
    other = expected.labels
    other[7, 9] = 0
    found = compared("U-Net 16", "tiles", {ONE_PASS: tied, "tiles": tied}, {ONE_PASS: other, "tiles": other}, expected)
    assert found["right"]
    assert found["labels, CPU"] == 1


def test_integer_networks_may_not_differ_at_all():
    """Not even by what is rounding elsewhere; NaN is a difference; another shape is an error."""
    right = scores()
    assert row_of(right, None, "U-Net 16 integer")["right"]
    wrong = right.copy()
    wrong[0, 0, 0] = np.nextafter(wrong[0, 0, 0], np.float32(9))
    assert not row_of(wrong, None, "U-Net 16 integer")["right"]
    wrong[0, 0, 0] = np.nan
    assert largest_difference(wrong, right) == float("inf")
    with pytest.raises(ValueError, match="differ"):
        largest_difference(right[:, 1:], right)


def test_shares_of_a_trace_are_by_track():
    """Two tracks that overlap: 0 to 4 s, and 3 to 5 s with a break."""
    names = {1: "read", 2: "cuda:0 compute"}
    events = [(1, 0.0, 4.0), (2, 3.0, 0.5), (2, 4.5, 0.5)]
    trace = {
        "traceEvents": [
            *({"ph": "M", "name": "thread_name", "tid": tid, "args": {"name": name}} for tid, name in names.items()),
            *({"ph": "X", "name": "w", "tid": tid, "ts": ts * 1e6, "dur": dur * 1e6} for tid, ts, dur in events),
        ]
    }
    found = shares(trace)
    assert found["busiest"] == "read"
    assert found["wall / busiest"] == pytest.approx(5 / 4)
    assert found["engine busy"] == pytest.approx(1 / 5)
    assert found["busy s"] == {"read": 4.0, "cuda:0 compute": 1.0}


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)).eval()
    with torch.no_grad():  # all classes occur
        seen = torch.from_numpy(picture("tissue", 100, 84)).permute(2, 0, 1)[None].float() / 255
        module[2].bias -= module(seen).mean((0, 2, 3))
    return module


def whole_labels(module: nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0].argmax(0).numpy()


def test_peers_with_enough_halo_give_one_pass_and_those_without_do_not(on_cpu):
    """Two 3x3 convolutions see 2 pixels: a halo of 2 is exact, none and blending are not, but nearly."""
    image = picture("tissue", 100, 84)
    expected = whole_labels(on_cpu, image)
    exact = segment(Tiled(tile=32, halo=2), on_cpu, image)
    assert np.array_equal(exact, expected)
    for peer in (
        Tiled(tile=32),
        Blended(window=32, overlap=0.25, gaussian=False),
        Blended(window=32, overlap=0.5, gaussian=True),
    ):
        found = segment(peer, on_cpu, image)
        assert found.shape == expected.shape
        assert 0 < np.mean(found != expected) < 0.2, peer.name
    small = segment(Blended(window=128, overlap=0.5, gaussian=True), on_cpu, image[:, :100])
    assert small.shape == expected.shape


def test_the_slide_is_a_jpeg_of_the_picture(tmp_path, monkeypatch):
    """Cut off where the last tiles are; larger than a block, the block repeats."""
    monkeypatch.setattr("benchmarks.gpu_kit.pictures.DISTINCT_PX", 512)
    with tifffile.TiffFile(jpeg_tiff(700, tmp_path)) as tiff:
        page = tiff.pages[0]
        assert page.compression == tifffile.COMPRESSION.JPEG
        pixels = page.asarray()
    block = picture("tissue", 512, 512).astype(int)
    assert pixels.shape == (700, 700, 3)
    assert np.abs(pixels[:512, :512] - block).mean() < 8
    assert np.array_equal(pixels[512:], pixels[:188])


NVML = """
import os
from pathlib import Path
from types import SimpleNamespace
nvmlInit = lambda: None
nvmlDeviceGetHandleByIndex = lambda index: index
nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(used=int(Path(os.environ["USED"]).read_text()))
"""


def test_the_peak_of_device_memory_is_sampled_by_a_process_of_its_own(tmp_path, monkeypatch):
    """What was in use for a while between two questions; where NVML fails, the driver is asked instead."""
    used = tmp_path / "used"

    def now(size: int) -> None:
        part = tmp_path / "part"
        part.write_text(str(size))
        part.replace(used)

    now(5)
    (tmp_path / "pynvml.py").write_text(NVML)
    paths = [tmp_path, *(ROOT / name for name in ("runtime", "converters", ""))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    monkeypatch.setenv("USED", str(used))
    monkeypatch.setenv(VARIABLE, "0")
    with sampler() as found:
        assert found.source == "NVML"
        assert found.peak_since_last() == 5
        now(100)
        time.sleep(0.5)
        now(7)
        assert found.peak_since_last() == 100
        assert found.peak_since_last() == 7
    used.unlink()
    asked = []
    monkeypatch.setattr("benchmarks.gpu_kit.device_memory._in_thread", lambda: nullcontext(asked))
    with sampler() as found:
        assert found is asked


def rehearsed(checks: list[Check], tmp_path, monkeypatch) -> dict:
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(ROOT / name) for name in ("runtime", "converters", "")))
    record = run_step("step-x", checks, results=tmp_path, folder=tmp_path / "scratch", minutes=10, machine={})
    outcomes = {entry["outcome"] for entry in record["checks"]}
    assert outcomes == {"passed"}, (tmp_path / "step-x.md").read_text()
    return record


@pytest.mark.slow
@pytest.mark.parametrize("step", ["b", "c"])
def test_a_rehearsal_of_some_checks(step, tmp_path, monkeypatch):
    """Of each kind one, on the emulated driver: they run in processes of their own, and pass."""
    pytest.importorskip("pycuda")
    monkeypatch.setenv(VARIABLE, "1")
    some = {
        "b": (
            "U-Net 32, FC-DenseNet-56",
            "U-Net 16, pycuda",
            "U-Net with statistics, pycuda",
            "killed, strips",
            "memory runs out",
            "command line",
        ),
        "c": ("slides", "file to file, U-Net 16", "one pass", "peers, U-Net 16"),
    }
    module = {"b": step_b, "c": step_c}[step]
    checks = [check for check in module.checks() if check.name in some[step]]
    record = rehearsed(checks, tmp_path, monkeypatch)
    assert len(record["checks"]) >= len(some[step]) - 1
    if step == "c":
        assert (tmp_path / "trace-u-net-16.json").stat().st_size > 1000
