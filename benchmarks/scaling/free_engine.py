"""A gigapixel image through reading, cropping and writing with an engine that costs nothing, in its own process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import onnx

from benchmarks.harness.worker import peak_bytes
from benchmarks.scaling.serial_meter import SerialMeter
from exactile import Session, open_sink, open_source
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.support.nets import onnx_bytes


class FreeEngine:
    """Labels are two bits of a channel: as cheap as filling the output can be, in ``threads`` threads."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "exactile-network")

    def infer(self, tile, out, _place=None) -> None:
        rows = -(-out.shape[0] // self._threads)
        list(self._pool.map(lambda start: self._fill(tile, out, slice(start, start + rows)), range(0, len(out), rows)))

    def _fill(self, tile, out, rows: slice) -> None:
        np.right_shift(tile[: out.shape[0], : out.shape[1], 0][rows], 6, out=out[rows])

    def cancel(self) -> None: ...

    def close(self) -> None:
        self._pool.shutdown()


class FreeLease:
    def engines(self, *_run) -> FreeLease:
        return self

    @contextmanager
    def lane(self, _index, _check) -> Iterator[tuple[FreeEngine, float]]:
        engine = FreeEngine(len(os.sched_getaffinity(0)))
        yield engine, 0.0
        engine.close()

    def close(self) -> None: ...


def run(request: dict) -> dict:
    """Return one run of ``image`` into ``output`` within ``memory_bytes``, by tiles of ``tile``.

    ``cores``: as on a machine with so many, if there are. ``metered``: with what it does one thing after the other.
    """
    if request.get("cores"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["cores"]])
    meter = SerialMeter() if request.get("metered") else None
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="network")
    session = Session(deploy(network, image_dtype="uint8"), memory_bytes=request["memory_bytes"], lanes=1)
    session._processor.lease = FreeLease()  # noqa: SLF001
    source = open_source(Path(request["image"]))
    compression = request.get("compression")
    sink = open_sink(Path(request["output"]), resumable=True, overwrite=True, compression=compression)
    tile = request["tile"]
    with nullcontext() if meter is None else meter.counting():
        summary = session.segment(source, sink, plan="tile", tile=(tile, tile))
    source.close()
    return {
        "total_s": summary.seconds.total,
        "read_s": summary.seconds.read,
        "infer_s": summary.seconds.infer,
        "write_s": summary.seconds.write,
        "peak_bytes": peak_bytes(),
        "decoded": summary.chunks.chunks_decoded,
        "stored": summary.chunks.chunks_stored,
        "megapixels": source.height * source.width / 1e6,
        **({} if meter is None else meter.found()),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
