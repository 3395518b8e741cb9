"""How fast do pixels go through when inference costs nothing? Mpx/s of the pipeline, and where the time goes.

``python benchmarks/throughput.py [--size 40000] [--memory 2GiB] [--outputs tif zarr]`` runs a JPEG BigTIFF of
size x size pixels RGB through reading, cropping and writing (labels, pyramid, journal) with an engine that copies a
channel, and prints Markdown. tifffile's decoding of the same file stands beside it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import tifffile

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import describe_machine
from exactile.cli.values import parse_bytes
from exactile.session import Session
from exactile.sinks.open import open_sink
from exactile.sources.open import open_source
from exactile_converters.deploy import deploy
from exactile_converters.from_onnx import prepare_network
from tests.nets import onnx_bytes
from tests.test_bounded_memory import write_slide


class FreeEngine:
    """Labels are two bits of a channel: as cheap as filling the output can be."""

    def infer(self, tile, out, _place=None) -> None:
        np.right_shift(tile[: out.shape[0], : out.shape[1], 0], 6, out=out)

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class FreeLease:
    @contextmanager
    def engine(self, _plan, **_options) -> Iterator[tuple[FreeEngine, float]]:
        yield FreeEngine(), 0.0

    def close(self) -> None: ...


def tifffile_seconds(path: Path) -> float:
    """Tifffile decodes the whole page in bands of its own, in threads."""
    begin = time.perf_counter()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        for _segment in page.segments(maxworkers=2):
            pass
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=40000)
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--tile", type=int, default=2048)
    parser.add_argument("--outputs", nargs="+", default=["tif", "ome.tif", "zarr"])
    options = parser.parse_args()
    print(describe_machine())
    print(f"\nCommand: `python benchmarks/throughput.py --size {options.size} --memory {options.memory}`\n")
    print("| output | seconds | Mpx/s | MB/s read | busy: read, engine, write | peak MiB | decoding alone |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "slide.tif"
        write_slide(slide, options.size, options.size)
        decoding_s = tifffile_seconds(slide)
        for output in options.outputs:
            network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="net")
            session = Session(deploy(network, image_dtype="uint8"), memory_bytes=parse_bytes(options.memory))
            session._processor.lease = FreeLease()  # noqa: SLF001
            source, sink = open_source(slide), open_sink(Path(folder) / f"labels.{output}", resumable=True)
            summary = session.segment(source, sink, plan="tile", tile=(options.tile, options.tile))
            source.close()
            seconds, pixels = summary.seconds, options.size**2
            print(
                f"| .{output} | {seconds.total:.1f} | {pixels / 1e6 / seconds.total:.0f} "
                f"| {3 * pixels / 1e6 / seconds.total:.0f} "
                f"| {seconds.read:.1f} / {seconds.infer:.1f} / {seconds.write:.1f} s "
                f"| {summary.peak_memory_bytes / 2**20:.0f} | {decoding_s / seconds.total:.2f} |",
                flush=True,
            )
            for left in Path(folder).glob("labels.*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        print(f"\ntifffile alone decodes the same file in {decoding_s:.1f} s, two threads.")


if __name__ == "__main__":
    main()
