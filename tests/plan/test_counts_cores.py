"""What a run does one thing after the other, in numbers that no machine changes.

Calls of our own functions need the interpreter's lock, of which there is one; so does handing work to another thread.
Figures are those of the day, to be lowered only; each has a planted mistake that is seen.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
import zarr

import exactile
from exactile.geometry import Box, Span
from exactile.plan.tiles import TilePlan
from exactile.session import Session
from exactile.sinks.open import open_sink
from exactile.sinks.resume import safekeeping
from exactile.sinks.tiff import store as tiff_store
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from exactile.sources.chunks import reader as chunk_reader
from exactile.sources.chunks.cache import ChunkCache
from exactile.sources.open import open_source
from exactile.sources.protocol import ReadPlan
from exactile.threads.workers import Workers
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.sinks.test_pixels import noise, row_major, spec_of
from tests.support.nets import onnx_bytes

SIDE, CHUNK, STEP, HALO = 1024, 64, 256, 8
OURS = f"{Path(exactile.__file__).parent}{os.sep}"


@contextmanager
def calls_of_ours() -> Iterator[Counter[str]]:
    """Calls of functions of the package in this thread, by file."""
    found: Counter[str] = Counter()

    def note(frame, event, _argument) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(OURS):
            found[name.removeprefix(OURS)] += 1

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)


@contextmanager
def counted(monkeypatch, owner, *names: str) -> Iterator[Counter[str]]:
    found: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(owner, name, counting(getattr(owner, name), found, name))
        yield found


def counting(function: Callable, found: Counter[str], name: str) -> Callable:
    def call(*arguments, **options):
        found[name] += 1
        return function(*arguments, **options)

    return call


def image(folder: Path, kind: str) -> Path:
    pixels = np.repeat(np.repeat(noise((SIDE // 16, SIDE // 16, 3), "uint8"), 16, 0), 16, 1)
    if kind == "zarr":
        zarr.create_array(folder / "image.zarr", shape=pixels.shape, chunks=(CHUNK, CHUNK, 3), dtype="uint8")[...] = (
            pixels
        )
        return folder / "image.zarr"
    options = {"plain": {}, "zlib": {"compression": "zlib"}, "jpeg": {"compression": "jpeg"}}[kind]
    tifffile.imwrite(folder / "image.tif", pixels, tile=(CHUNK, CHUNK), photometric="rgb", **options)
    return folder / "image.tif"


def sweep() -> ReadPlan:
    spans = tuple(Span(max(0, start - HALO), min(SIDE, start + STEP + HALO)) for start in range(0, SIDE, STEP))
    return ReadPlan(rows=spans, columns=spans)


def read_all(path: Path, within=None) -> int:
    """Read the image in boxes that overlap, in one thread; the number of pieces of chunks that this takes."""
    plan = sweep()
    source = open_source(path, workers=1)
    source.prepare(plan, cache_bytes=source.cache_bytes(plan))
    boxes = [Box(rows, columns) for rows in plan.rows for columns in plan.columns]
    out = np.empty((STEP + 2 * HALO, STEP + 2 * HALO, 3), np.uint8)
    with within or contextmanager(lambda: iter([None]))():
        for box in boxes:
            source.read(box, out[: box.y.length, : box.x.length])
    source.close()
    pieces = [-(-span.stop // CHUNK) - span.start // CHUNK for span in plan.rows]
    return sum(pieces) ** 2


MOST_CALLS = {"jpeg": 14, "zlib": 13, "plain": 19, "zarr": 17}
"""Of our own functions, for each piece of a chunk that a read wants."""


@pytest.mark.parametrize("kind", MOST_CALLS)
def test_a_piece_of_a_chunk_is_read_with_few_calls(tmp_path, kind, monkeypatch):
    path = image(tmp_path, kind)
    with calls_of_ours() as found:
        pieces = read_all(path)
    opening = calls_to_open(path)
    assert (found.total() - opening) / pieces <= MOST_CALLS[kind], found
    # Planted: two calls more for each piece.
    parts = chunk_reader.ChunkForm.parts

    def parts_asked_again(form, box, out):
        for key, inside, target in parts(form, box, out):
            form.grid.chunk_box(key[1], key[2])
            yield key, inside, target

    monkeypatch.setattr(chunk_reader.ChunkForm, "parts", parts_asked_again)
    with calls_of_ours() as more:
        read_all(path)
    assert (more.total() - opening) / pieces > MOST_CALLS[kind]


def calls_to_open(path: Path) -> int:
    with calls_of_ours() as found:
        source = open_source(path, workers=1)
        source.prepare(sweep(), cache_bytes=source.cache_bytes(sweep()))
        source.close()
    return found.total()


class CountedLock:
    def __init__(self) -> None:
        self.lock, self.times = threading.Lock(), 0

    def __enter__(self) -> None:
        self.times += 1
        self.lock.acquire()

    def __exit__(self, *_failure) -> None:
        self.lock.release()


def test_the_kept_chunks_are_locked_twice_a_read_and_once_for_each_that_is_kept(tmp_path, monkeypatch):
    locks: list[CountedLock] = []
    make = ChunkCache.__init__

    def made(cache, limit_bytes) -> None:
        make(cache, limit_bytes)
        cache._lock = CountedLock()
        locks.append(cache._lock)

    monkeypatch.setattr(ChunkCache, "__init__", made)
    kept: Counter[str] = Counter()
    monkeypatch.setattr(ChunkCache, "put", counting(ChunkCache.put, kept, "put"))
    read_all(image(tmp_path, "zlib"))
    reads = len(sweep().rows) ** 2
    assert locks[0].times == 1 + 2 * reads + kept["put"]
    # Rows and columns of chunks at the three inner edges, of which a box of either side wants two.
    chunks = SIDE // CHUNK
    assert kept["put"] == chunks**2 - (chunks - 6) ** 2


def test_zarr_takes_no_turn_of_its_event_loop_for_a_chunk(tmp_path, monkeypatch):
    from zarr.core import array, sync

    path = image(tmp_path, "zarr")
    with counted(monkeypatch, array, "sync") as reading:
        read_all(path)
    assert reading["sync"] == 0
    turns = []
    for side in (256, 1024):
        with counted(monkeypatch, sync, "sync") as writing, counted(monkeypatch, array, "sync") as elements:
            write_all(tmp_path / f"{side}.zarr", side, pyramid=False)
        turns.append(writing["sync"] + elements["sync"])
    assert turns[0] == turns[1]
    # Planted: the chunks are the package's again.
    monkeypatch.setattr("exactile.sources.zarr.chunks.stored_chunks", lambda _array: None)
    with counted(monkeypatch, array, "sync") as reading:
        read_all(path)
    assert reading["sync"] >= (SIDE // CHUNK) ** 2


def write_all(path: Path, side: int, **options) -> tuple[int, int, int]:
    """Boxes that straddle the file's tiles; how many of them, of tiles, and of pieces that do not complete a tile."""
    pixels, tile, step = noise((side, side), "uint8"), 64, 96
    boxes = row_major(side, side, step, step)
    sink = open_sink(path, resumable=True, tile=tile, compression="zstd", **options)
    sink.describe({"a": 1}, resume=False)
    sink.begin(spec_of(pixels))
    for box in boxes:
        sink.write(box, pixels[box.slices()])
    sink.finish()
    stops = [min(side, start + step) for start in range(0, side, step)]
    pieces = sum(-(-stop // tile) - start // tile for start, stop in zip(range(0, side, step), stops, strict=True))
    return len(boxes), (side // tile) ** 2, pieces**2 - (side // tile) ** 2


@pytest.fixture
def no_claims_meanwhile(monkeypatch):
    monkeypatch.setattr(safekeeping, "COMMIT_SECONDS", 1e9)


@pytest.mark.usefixtures("no_claims_meanwhile")
def test_a_box_is_one_write_and_the_disk_is_waited_for_at_the_end(tmp_path, monkeypatch):
    """Its tiles. Beside them: head and tables of the file, begin of the journal."""
    with counted(monkeypatch, os, "pwrite", "pwritev", "fsync", "fdatasync") as found:
        boxes, _, _ = write_all(tmp_path / "a.tif", 1024, pyramid=False)
    assert found["pwrite"] == 2
    assert found["pwritev"] <= boxes + 1
    assert found["fsync"] + found["fdatasync"] == 2
    # Planted: every tile in a write of its own.
    monkeypatch.setattr(tiff_store, "MOST_WAITING_BYTES", 0)
    with counted(monkeypatch, os, "pwritev") as more:
        _, tiles, _ = write_all(tmp_path / "b.tif", 1024, pyramid=False)
    assert more["pwritev"] >= tiles > boxes + 1


@pytest.mark.usefixtures("no_claims_meanwhile")
def test_a_tile_is_handed_to_another_thread_once_and_its_pieces_are_not(tmp_path, monkeypatch):
    with counted(monkeypatch, Workers, "begin") as found:
        _, tiles, _ = write_all(tmp_path / "a.tif", 1024, pyramid=False)
    assert found["begin"] == tiles
    with counted(monkeypatch, Workers, "begin") as levels:
        write_all(tmp_path / "b.tif", 1024)
    assert levels["begin"] == found["begin"] + 64 + 16 + 4 + 1


def test_a_piece_is_handed_over_once_however_often_boxes_are_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(safekeeping, "COMMIT_SECONDS", 0)
    with counted(monkeypatch, Workers, "begin") as found:
        _, tiles, pieces = write_all(tmp_path / "a.tif", 1024, pyramid=False)
    assert tiles < found["begin"] <= tiles + pieces


def test_a_read_asks_each_helper_once(tmp_path, monkeypatch):
    path, plan = image(tmp_path, "zlib"), sweep()
    with counted(monkeypatch, Workers, "begin") as found:
        source = open_source(path, workers=3)
        source.prepare(plan, cache_bytes=source.cache_bytes(plan))
        out = np.empty((STEP + 2 * HALO, STEP + 2 * HALO, 3), np.uint8)
        for rows in plan.rows:
            for columns in plan.columns:
                source.read(Box(rows, columns), out[: rows.length, : columns.length])
        source.close()
    assert found["begin"] == 2 * len(plan.rows) ** 2


def test_many_threads_that_compress_shrink_no_tile(tmp_path, monkeypatch):
    """Where memory is scarce, fewer compress; the plan is that of a machine with two cores."""
    monkeypatch.setattr("exactile.sinks.tiles.encode_queue.os.sched_getaffinity", lambda _process: range(64))
    model = deploy(prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="u"), image_dtype="uint8")
    source = ArraySource(noise((4000, 4000, 3), "uint8"))
    sinks = {workers: TiffSink(tmp_path / f"{workers}.tif", workers=workers, resumable=True) for workers in (2, None)}
    plan = TilePlan.of(model.contract.geometry, (4000, 4000), "model", (1000, 1000))
    tight = Session(model).memory_need(plan, source, sinks[2])
    session = Session(model, memory_bytes=tight.needed_bytes + (8 << 20))
    few, many = (session.plan(source, sink, plan="tile").plan for sink in sinks.values())
    assert few == many
    need = session.memory_need(many, source, sinks[None])
    assert need.sink_bytes == session.memory_need(few, source, sinks[2]).sink_bytes
    assert sinks[None]._workers == 16
    session._planner.save(many, source, sinks[None], need)
    assert 2 <= sinks[None]._workers < 16
    assert session.memory_need(many, source, sinks[None]).spare_bytes <= need.granted_spare(session.budget_bytes)
    roomy = Session(model, memory_bytes=8 << 30)
    sink = TiffSink(tmp_path / "c.tif", resumable=True)
    roomy._planner.save(many, source, sink, roomy.memory_need(many, source, sink))
    assert sink._workers == 16
