"""Segment a large micrograph with a small trained network, and check the result: ``python examples/demo.py``.

1. Make ``demo/slide.tif``, a tiled TIFF with real content: the immunohistochemistry micrograph of scikit-image,
   mirrored at its edges so that it goes on without seams, under lighting that varies over the slide.
2. Run the command line on it, as anybody would: ``exactile run models/stain_unet.onnx demo/slide.tif -o ...``.
3. Compare three regions with plain onnxruntime passes that know nothing of exactile. Not one label may differ.
4. Draw ``demo/overlay.png``: the slide and a part of it at full resolution, with and without the classes.

Exit status: 0, or 1 if a label differs, or that of the command line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tifffile
from PIL import Image
from skimage.data import immunohistochemistry

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "stain_unet.onnx"
SCALE, MEAN, STD = 255.0, 0.5, 0.25  # what the network was trained with: (sample / SCALE - MEAN) / STD

TILE_PX = 256
REGION_PX = 1024
# The network sees 46 pixels far and commutes with shifts of 8; anything larger that is a multiple of 8 will do.
CONTEXT_PX = 128
OVERVIEW_PX = 1024

CLASS_NAMES = ("background", "nuclei", "DAB")
CLASS_COLOURS = np.array([[0, 0, 0], [40, 90, 255], [255, 140, 0]], dtype=np.float32)
CLASS_OPACITY = np.array([0.0, 0.55, 0.55], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Pixels ``[y0, y1) x [x0, x1)`` of the slide."""

    name: str
    y0: int
    y1: int
    x0: int
    x1: int

    def grown(self, by_px: int, size_px: int) -> Region:
        """Return the region with ``by_px`` of context on each side, as far as the slide has it."""
        return Region(
            name=self.name,
            y0=max(0, self.y0 - by_px),
            y1=min(size_px, self.y1 + by_px),
            x0=max(0, self.x0 - by_px),
            x1=min(size_px, self.x1 + by_px),
        )


def slide_tiles(size_px: int) -> Iterator[np.ndarray]:
    """Yield the slide's tiles in file order: (TILE_PX, TILE_PX, 3) uint8."""
    image = immunohistochemistry().astype(np.float32)
    period = 2 * image.shape[0]

    def mirrored(start: int) -> np.ndarray:
        position = np.arange(start, start + TILE_PX) % period
        return np.asarray(np.minimum(position, period - 1 - position))

    for y, x in itertools.product(range(0, size_px, TILE_PX), repeat=2):
        tile = image[mirrored(y)[:, None], mirrored(x)[None, :]]
        # Waves of no common period, so that no two copies are lit alike.
        rows = np.arange(y, y + TILE_PX, dtype=np.float32)[:, None, None]
        columns = np.arange(x, x + TILE_PX, dtype=np.float32)[None, :, None]
        light = 0.92 + 0.04 * np.sin(rows / 811 + columns / 2099) + 0.04 * np.cos(columns / 677 - rows / 1777)
        yield np.clip(tile * light, 0, 255).astype(np.uint8)


def write_slide(path: Path, size_px: int) -> None:
    """Write a BigTIFF of JPEG tiles, like slide scanners; one tile at a time is in memory."""
    tifffile.imwrite(
        path,
        slide_tiles(size_px),
        shape=(size_px, size_px, 3),
        dtype=np.uint8,
        bigtiff=True,
        tile=(TILE_PX, TILE_PX),
        photometric="rgb",  # stored as YCbCr with halved chroma, as is usual for JPEG
        compression="jpeg",
        compressionargs={"level": 90},
    )


def run_command_line(slide: Path, labels: Path, memory: str) -> dict[str, Any]:
    """Run ``exactile run``; return its JSON summary. Exit with its status if it fails."""
    command = ["run", os.path.relpath(MODEL), str(slide), "-o", str(labels), "--memory", memory]
    command += ["--scale", f"{SCALE:g}", "--mean", f"{MEAN:g}", "--std", f"{STD:g}", "--overwrite"]
    print("$ exactile", *command, flush=True)
    # Standard error stays the terminal's: that is where the progress bar goes.
    done = subprocess.run(  # noqa: S603  # our own command line, no shell
        [sys.executable, "-m", "exactile", *command, "--json"], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        sys.exit(done.returncode)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def print_summary(summary: dict[str, Any]) -> None:
    seconds, wanted, computed = summary["seconds"], summary["wanted_pixels"], summary["computed_pixels"]
    parts = ", ".join(f"{part} {seconds[part]:.1f}" for part in ("read", "infer", "write"))
    print(f"  plan    {summary['plan']}, tile {' x '.join(map(str, summary['tile']))}")
    print(f"  pixels  {wanted / 1e6:.1f} million wanted, {computed / wanted:.3f} times as many computed")
    print(f"  time    {seconds['total']:.1f} s, {wanted / 1e6 / seconds['total']:.2f} megapixels/s (busy: {parts})")
    print(f"  memory  {summary['peak_memory_bytes'] / 2**20:.0f} MiB at the peak")


def read_parts(path: Path, regions: list[Region], step_px: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the regions, and every ``step_px``-th pixel of the whole: one pass over the file, one stored tile at a
    time.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        channels = page.shape[2:]
        height, width = (-(-size // step_px) for size in page.shape[:2])
        parts = [np.zeros((r.y1 - r.y0, r.x1 - r.x0, *channels), np.uint8) for r in regions]
        overview = np.zeros((height, width, *channels), np.uint8)
        for tile, (_, _, y, x, _), (_, rows, columns, _) in page.segments():
            if tile is None:  # a tile that was never stored, all zeros
                continue
            pixels = tile.reshape(tile.shape[1], tile.shape[2], *channels)[:rows, :columns]
            for part, region in zip(parts, regions, strict=True):
                paste(part, pixels, y - region.y0, x - region.x0)
            first_y, first_x = -y % step_px, -x % step_px
            paste(overview, pixels[first_y::step_px, first_x::step_px], -(-y // step_px), -(-x // step_px))
    return parts, overview


def paste(target: np.ndarray, pixels: np.ndarray, y: int, x: int) -> None:
    """Copy what of ``pixels``, its corner at (y, x), falls inside ``target``."""
    y0, x0 = max(y, 0), max(x, 0)
    y1, x1 = min(y + pixels.shape[0], target.shape[0]), min(x + pixels.shape[1], target.shape[1])
    if y0 < y1 and x0 < x1:
        target[y0:y1, x0:x1] = pixels[y0 - y : y1 - y, x0 - x : x1 - x]


def whole_pass(image: np.ndarray) -> np.ndarray:
    """Return labels of one plain pass: (H, W, 3) uint8 -> (H, W) uint8."""
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    tensor = (image.astype(np.float32) / np.float32(SCALE) - np.float32(MEAN)) / np.float32(STD)
    (logits,) = session.run(["logits"], {"image": np.ascontiguousarray(tensor.transpose(2, 0, 1)[None])})
    labels: np.ndarray = logits[0].argmax(axis=0).astype(np.uint8)
    return labels


def regions_to_check(size_px: int) -> list[Region]:
    """Return two corners, where the network's own padding acts, and the middle; all start at a multiple of 8."""
    side = min(REGION_PX, size_px)
    middle = (size_px - side) // 2 // 8 * 8
    starts = {"top left": 0, "middle": middle, "bottom right": size_px - side}
    return [Region(name=name, y0=at, y1=at + side, x0=at, x1=at + side) for name, at in starts.items()]


def count_differences(
    regions: list[Region], contexts: list[Region], crops: list[np.ndarray], found: list[np.ndarray]
) -> int:
    """Print and add up the labels that differ from a whole pass over each region and its context."""
    total = 0
    for region, context, crop, labels in zip(regions, contexts, crops, found, strict=True):
        y, x = region.y0 - context.y0, region.x0 - context.x0
        expected = whole_pass(crop)[y : y + labels.shape[0], x : x + labels.shape[1]]
        different = int((expected != labels).sum())
        shares = np.bincount(labels.ravel(), minlength=len(CLASS_NAMES)) / labels.size
        named = ", ".join(f"{name} {share:.0%}" for name, share in zip(CLASS_NAMES, shares, strict=True))
        print(f"  {region.name:12s}  {different} of {labels.size} labels differ   ({named})", flush=True)
        total += different
    return total


def overlaid(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return image and image under the class colours, side by side: (H, 2W, 3) uint8."""
    opacity = CLASS_OPACITY[labels][..., None]
    mixed = image * (1 - opacity) + CLASS_COLOURS[labels] * opacity
    return np.hstack([image, mixed.astype(np.uint8)])


def draw(path: Path, overview: tuple[np.ndarray, np.ndarray], crop: tuple[np.ndarray, np.ndarray]) -> None:
    """Draw the overview above, the full-resolution crop below, both cut to the same width."""
    width = min(overview[0].shape[1], crop[0].shape[1])
    rows = [overlaid(image[:width, :width], labels[:width, :width]) for image, labels in (overview, crop)]
    Image.fromarray(np.vstack(rows)).save(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--size", type=int, default=8192, help=f"side of the slide, a multiple of {TILE_PX} (%(default)s)"
    )
    parser.add_argument("--memory", default="1GiB", help="memory budget (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="where the files go (%(default)s)")
    options = parser.parse_args()
    size = options.size
    if size < TILE_PX or size % TILE_PX:
        parser.error(f"--size must be a positive multiple of {TILE_PX}, got {size}")
    options.folder.mkdir(parents=True, exist_ok=True)
    slide, labels, picture = (options.folder / name for name in ("slide.tif", "labels.tif", "overlay.png"))

    start_s = time.perf_counter()
    print(f"Making {slide}: {size} x {size} pixels RGB, {size * size * 3 / 2**20:.0f} MiB decoded", flush=True)
    write_slide(slide, size)
    print(f"  {slide.stat().st_size / 2**20:.0f} MiB on disk, {time.perf_counter() - start_s:.1f} s")

    print_summary(run_command_line(slide, labels, options.memory))

    print("Comparing with whole passes of plain onnxruntime:", flush=True)
    regions, step = regions_to_check(size), -(-size // OVERVIEW_PX)
    contexts = [region.grown(CONTEXT_PX, size) for region in regions]
    crops, slide_overview = read_parts(slide, contexts, step)
    found, label_overview = read_parts(labels, regions, step)
    different = count_differences(regions, contexts, crops, found)

    middle, context = regions[1], contexts[1]
    y, x = middle.y0 - context.y0, middle.x0 - context.x0
    crop = crops[1][y : y + found[1].shape[0], x : x + found[1].shape[1]]
    draw(picture, (slide_overview, label_overview), (crop, found[1]))
    print(f"Labels:  {labels}\nPicture: {picture} (blue: nuclei, orange: DAB)")
    if different:
        print(f"{different} labels differ: tiled and whole-image results are not the same", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
