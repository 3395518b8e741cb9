"""A line camera scans a slide; the label image is written while it moves.

``python examples/line_camera.py [--rows 3000] [--width 1024] [--rate 2000]`` plays real stained tissue row by row, as a
camera of ``--rate`` rows a second would deliver it, pushes the rows into a stream, and draws how many rows, and how
much time, the results lie behind the camera. Writes ``labels.tif`` and ``latency.png`` to ``--to``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from skimage import data

from exactile import Session, open_sink
from exactile_converters.deploy import Normalization, deploy, load_network

mpl.use("Agg")
from matplotlib import pyplot as plt

MODEL = Path(__file__).parent.parent / "models" / "stain_unet.onnx"
Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """After ``pushed`` rows: result rows ``given``, rows the camera has taken by now, seconds since the start."""

    pushed: int
    given: int
    scanned: int
    seconds: float


def tissue(rows: int, width: int) -> Image:
    """Return real stained tissue, mirrored to size."""
    image = data.immunohistochemistry()
    both = np.concatenate([image, image[::-1]], axis=0)
    block = np.concatenate([both, both[:, ::-1]], axis=1)
    return np.tile(block, (-(-rows // block.shape[0]), -(-width // block.shape[1]), 1))[:rows, :width]


def camera(image: Image, rate: float) -> Iterator[Image]:
    """Yield the rows that the camera has taken since the last call; wait for the next one if there are none."""
    begin, taken = time.perf_counter(), 0
    while taken < len(image):
        ready = min(len(image), int((time.perf_counter() - begin) * rate))
        if ready == taken:
            time.sleep(1 / rate)
            continue
        yield image[taken:ready]
        taken = ready


def scan(session: Session, image: Image, rate: float, strip_rows: int | None, target: Path) -> list[Moment]:
    """Push everything; return what was known when."""
    moments: list[Moment] = []
    begin, given, pushed = time.perf_counter(), 0, 0
    sink = open_sink(target, overwrite=True)
    height, width = image.shape[:2]
    with session.stream(width=width, dtype="uint8", rows=strip_rows, height=height, sink=sink) as stream:
        for rows in camera(image, rate):
            pushed += len(rows)
            for first, labels in stream.push(rows):
                given = first + len(labels)
            now = time.perf_counter() - begin
            moments.append(Moment(pushed=pushed, given=given, scanned=min(height, int(now * rate)), seconds=now))
        for first, labels in stream.close():
            given = first + len(labels)
    moments.append(Moment(pushed=pushed, given=given, scanned=height, seconds=time.perf_counter() - begin))
    return moments


def draw(moments: list[Moment], rate: float, lag_rows: int, target: Path) -> None:
    """Draw rows and milliseconds behind the camera during the scan."""
    scanned = [moment.scanned for moment in moments]
    behind = [moment.scanned - moment.given for moment in moments]
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.plot(scanned, behind, lw=1, label="rows without a result yet")
    axes.axhline(lag_rows, color="0.5", lw=1, ls="--", label=f"halo: {lag_rows} rows, no method can be closer")
    axes.set(xlabel="rows scanned", ylabel="rows behind the camera", ylim=(0, None))
    axes.secondary_yaxis("right", functions=(lambda r: r / rate * 1e3, lambda ms: ms * rate / 1e3)).set_ylabel("ms")
    axes.legend(loc="lower center")
    figure.savefig(target, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=300, help="rows a second")
    parser.add_argument("--strip-rows", type=int, help="rows in a strip [default: by predicted time]")
    parser.add_argument("--to", type=Path, default=Path("demo"), help="folder for the results")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    network = load_network(MODEL)
    session = Session(deploy(network, image_dtype="uint8", normalization=Normalization(scale=(255.0,))))
    image = tissue(options.rows, options.width)
    moments = scan(session, image, options.rate, options.strip_rows, options.to / "labels.tif")
    draw(moments, options.rate, session.contract.geometry.y.halo_after, options.to / "latency.png")
    steady = [moment.scanned - moment.given for moment in moments[len(moments) // 2 : -1]]
    print(f"{options.rows} rows of {options.width} pixels at {options.rate:.0f} rows/s in {moments[-1].seconds:.1f} s")
    print(f"behind the camera: at most {max(steady)} rows in the second half of the scan")
    print(f"written: {options.to / 'labels.tif'}, {options.to / 'latency.png'}")


if __name__ == "__main__":
    main()
