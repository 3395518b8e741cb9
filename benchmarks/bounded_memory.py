"""Does resident memory stay within the budget, however large the image? Minutes to an hour, by the engine's speed.

``python benchmarks/bounded_memory.py [--memory 2GiB] [--width 20000] [--heights 20000 80000]`` runs the command line
on JPEG BigTIFFs of these sizes and prints Markdown: one image, and one four times taller.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import describe_machine
from tests.command import run_json
from tests.nets import onnx_file
from tests.test_bounded_memory import write_slide

COLUMNS = "| image | network | tile | computed / wanted | peak MiB | chunks decoded / stored | total / busy | Mpx/s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--width", type=int, default=20000)
    parser.add_argument("--heights", type=int, nargs="+", default=[20000, 80000])
    options = parser.parse_args()
    print(describe_machine())
    print(f"\nCommand: `python benchmarks/bounded_memory.py --memory {options.memory}`\n")
    print(COLUMNS)
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        small = onnx_file(place, "unet_d1_rgb")
        trained = Path(__file__).parent.parent / "models" / "stain_unet.onnx"
        for height in options.heights:
            write_slide(place / "slide.tif", height, options.width)
            # The larger network once: the small one shows the same in less time.
            for model in [trained, small] if height == min(options.heights) else [small]:
                arguments = ("-o", place / "labels.tif", "--memory", options.memory, "--scale", 255, "--overwrite")
                print(row(run_json(model, place / "slide.tif", *arguments), model.stem), flush=True)


def row(summary: dict, model: str) -> str:
    height, width = summary["image_size"]
    seconds = summary["seconds"]
    return (
        f"| {height} x {width} | {model} | {summary['tile'][0]} x {summary['tile'][1]} "
        f"| {summary['computed_over_wanted']:.3f} | {summary['peak_memory_bytes'] / 2**20:.0f} "
        f"| {summary['chunks_decoded']} / {summary['chunks_stored']} "
        f"| {seconds['total'] / seconds['infer']:.3f} | {summary['megapixels_per_second']:.2f} |"
    )


if __name__ == "__main__":
    main()
