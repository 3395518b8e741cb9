"""The whole pipeline on a GPU with a network that is one kernel: labels, what overlaps, and what limits it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_kit.copy_engine import THRESHOLD, Kernel, box_model, in_place_of_tensorrt, with_copy_engine
from benchmarks.gpu_kit.device_checks import closing, opened, timed
from benchmarks.gpu_kit.rehearsal import rehearsing
from benchmarks.harness.worker import ROOT
from exactile.cuda.choice import open_driver
from exactile.doctor.overlap import overlap_of
from exactile.pipeline.timing import TimeSpan
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

LEAST_SPINS, MOST_SPINS = 64, 4096


def labels(binding: str, side: int, tile: int, batch: int, folder: Path) -> dict[str, Any]:
    """Compare labels of odd sizes by the kernel, in tiles, with those of ONNX Runtime on the CPU: all of them."""
    image = noise(side, side + 37)
    expected = segmented(box_model(), image, device="cpu")
    model = with_copy_engine(
        box_model(), folder / f"box-{tile}-{batch}", (tile, tile), capability(binding), batch=batch
    )
    with in_place_of_tensorrt(Kernel(capability(binding), folder), binding):
        found = segmented(model, image, device="cuda:0")
    differing = int(np.count_nonzero(expected != found))
    classes = np.bincount(expected.ravel()).tolist()
    return {"passed": differing == 0, "differing": differing, "labels": expected.size, "classes": classes}


def overlap(binding: str, side: int, tile: int, milliseconds: float, folder: Path) -> dict[str, Any]:
    """Measure the time from the first copy in to the last copy out, by that of the busiest stream; compare labels with
    numpy.

    ``milliseconds`` is how long a tile computes (0: as fast as it can, which shows what the host sustains).
    """
    spins = 0 if rehearsing() or not milliseconds else spins_for(binding, tile, milliseconds / 1e3, folder)
    model = with_copy_engine(box_model(), folder / f"box-{tile}", (tile, tile), capability(binding))
    image = noise(side, side)
    spans: list[TimeSpan] = []
    sink = ArraySink()
    with in_place_of_tensorrt(Kernel(capability(binding), folder, spins), binding):
        session = Session(model, device="cuda:0", keep_engine=True)
        try:
            session.segment(ArraySource(image), ArraySink())
            begin = time.perf_counter()
            session.segment(ArraySource(image), sink, trace=lambda span, _steps: spans.append(span))
            seconds = time.perf_counter() - begin
        finally:
            session.close()
    measured = overlap_of(spans)
    if measured is None:
        return {"passed": False, "note": "no spans of the GPU's streams"}
    busy = {f"{work} s": busy_s for work, busy_s in measured.busy_s.items()}
    return {
        "passed": bool(np.array_equal(sink.result, thresholded(image))),
        "binding": binding,
        "tile": tile,
        "kernel_ms": milliseconds,
        "loads": measured.loads,
        "wall_by_busiest": measured.wall_s / measured.busy_s[measured.bottleneck],
        "busiest": measured.bottleneck,
        "copies_hidden": measured.hidden_share,
        **busy,
        "wall s": measured.wall_s,
        "Mpx/s": image.size / seconds / 1e6,
    }


def sanitized(tool: str, side: int, folder: Path) -> dict[str, Any]:
    """Run briefly under ``compute-sanitizer``: no error by this tool."""
    command = [sys.executable, "-m", "benchmarks.gpu_kit.copy_pipeline", str(side), str(folder)]
    if shutil.which("compute-sanitizer") is None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        print(done.stdout, done.stderr)
        return {"passed": rehearsing() and done.returncode == 0, "note": "there is no compute-sanitizer: run without"}
    options = ["--tool", tool, "--error-exitcode", "9", "--target-processes", "all"]
    done = subprocess.run(
        ["compute-sanitizer", *options, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(done.stdout[-6000:], done.stderr[-2000:])
    said = [line for line in done.stdout.splitlines() if "ERROR SUMMARY" in line or "RACECHECK SUMMARY" in line]
    return {"passed": done.returncode == 0 and bool(said), "tool": tool, "said": "; ".join(said)}


def spins_for(binding: str, tile: int, seconds: float, folder: Path) -> int:
    """Return spins with which the kernel takes about ``seconds`` for a tile: from two measured, on a straight line."""
    with opened(binding) as device:
        kernel = Kernel(capability(binding), folder)
        with closing(device.stream()) as stream, closing(device.memory.allocate(2 * tile * tile)) as buffer:
            times = []
            for kernel.spins in (LEAST_SPINS, MOST_SPINS):
                launch = _Launch(kernel, stream.handle, buffer.address, tile)
                launch()
                times.append(timed(device, stream, launch))
    slope = (times[1] - times[0]) / (MOST_SPINS - LEAST_SPINS)
    return max(0, int(LEAST_SPINS + (seconds - times[0]) / slope))


class _Launch:
    """One launch over a tile, without the stand-in."""

    def __init__(self, kernel: Kernel, stream: int, address: int, tile: int) -> None:
        self._kernel, self._stream, self._address, self._pixels = kernel, stream, address, tile * tile
        self._inputs = [("image", np.dtype(np.uint8), (tile, tile, 1), address)]

    def __call__(self) -> None:
        spans = [(self._address, self._pixels)], [(self._address + self._pixels, self._pixels)]
        if status := self._kernel.enqueue(self._stream, self, *spans):
            raise RuntimeError(f"cuLaunchKernel returned {status}")


def thresholded(image: np.ndarray) -> np.ndarray:
    """Return the network's labels, (H, W), by numpy."""
    height, width, _ = image.shape
    padded = np.pad(image[..., 0].astype(np.uint16), 1)
    sums = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return np.asarray(sums > THRESHOLD, np.uint8)


def capability(binding: str) -> tuple[int, int]:
    """Return the compute capability of the first GPU."""
    return open_driver(binding).devices()[0].compute_capability


def noise(height: int, width: int) -> np.ndarray:
    """Return (H, W, 1) uint8."""
    return np.random.default_rng(5).integers(0, 256, (height, width, 1), np.uint8)


def segmented(model: Any, image: np.ndarray, *, device: str) -> np.ndarray:
    """Return labels, (H, W), by a session of its own."""
    sink = ArraySink()
    session = Session(model, device=device)
    try:
        session.segment(ArraySource(image), sink)
    finally:
        session.close()
    return sink.result


def main(side: int, folder: Path) -> int:
    """Run what the sanitizer watches: several tiles on one binding. Exit status 1 if labels differ."""
    from benchmarks.gpu_kit.rehearsal import prepare_process

    prepare_process()
    found = labels("cuda.bindings", side, 128, 1, folder)
    print(found)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
