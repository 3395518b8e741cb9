"""Each stored chunk is decoded once within the bytes that a plan asks for, and never more is held than was granted."""

from __future__ import annotations

import threading
import weakref
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exactile.geometry import Box, Span
from exactile.sources.chunks.cache import ChunkCache
from exactile.sources.chunks.decode_pool import DecodePool
from exactile.sources.chunks.grid import ChunkGrid
from exactile.sources.chunks.schedule import SweepSchedule
from exactile.sources.protocol import ReadPlan
from exactile.sources.tiff.source import TiffSource

HEIGHT, WIDTH, TILE = 100, 125, 16


@st.composite
def spans(draw: st.DrawFn, size: int) -> list[Span]:
    """Spans in rising order of their starts, of any lengths, empty ones too."""
    starts = sorted(draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=6)))
    return [Span(start, draw(st.integers(start, size))) for start in starts]


@st.composite
def plans(draw: st.DrawFn, height: int = HEIGHT, width: int = WIDTH) -> ReadPlan:
    return ReadPlan(rows=draw(spans(height)), columns=draw(spans(width)))


def boxes(plan: ReadPlan) -> list[Box]:
    return [Box(rows, columns) for rows in plan.rows for columns in plan.columns]


def chunks_of(box: Box, rows: int, columns: int) -> set[tuple[int, int]]:
    """The chunks under ``box``, pixel by pixel."""
    return {(y // rows, x // columns) for y in range(*_ends(box.y)) for x in range(*_ends(box.x))}


def _ends(span: Span) -> tuple[int, int]:
    return span.start, span.stop


def simulated_peak(plan: ReadPlan, rows: int, columns: int) -> int:
    """The most chunks alive at once that are read again, found by walking through the plan with sets."""
    reads = [chunks_of(box, rows, columns) for box in boxes(plan)]
    peak = 0
    for index, now in enumerate(reads):
        before, after = set().union(*reads[:index]), set().union(*reads[index + 1 :])
        peak = max(peak, len((before & after) | (now & (before | after))))
    return peak


@settings(max_examples=150, deadline=None)
@given(
    plan=plans(24, 31),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
)
def test_the_bytes_asked_for_are_those_of_a_walk_through_the_plan(plan, rows, columns):
    grid = ChunkGrid(height=24, width=31, chunk_rows=rows, chunk_columns=columns)
    schedule = SweepSchedule(grid, plan)
    assert schedule.peak_chunks() == simulated_peak(plan, rows, columns)
    assert schedule.most_chunks_of_a_box() >= max(len(chunks_of(box, rows, columns)) for box in boxes(plan))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cache")
    planes = np.moveaxis(image, 2, 0)
    options = {"photometric": "rgb", "compression": "zlib"}
    tifffile.imwrite(folder / "tiles", image, tile=(TILE, TILE), **options)
    tifffile.imwrite(folder / "planar", planes, tile=(TILE, TILE), planarconfig="separate", **options)
    tifffile.imwrite(folder / "strips", image, rowsperstrip=9, **options)
    return {kind: folder / kind for kind in ("tiles", "planar", "strips")}


CHUNK = {"tiles": (TILE, TILE), "planar": (TILE, TILE), "strips": (9, WIDTH)}
CHUNK_BYTES = {"tiles": TILE * TILE * 3, "planar": TILE * TILE, "strips": 9 * WIDTH * 3}
PLANES = {"tiles": 1, "planar": 3, "strips": 1}


class LiveChunks:
    """Counts the bytes of decoded chunks that anybody still refers to."""

    def __init__(self, source: TiffSource) -> None:
        self.bytes = self.peak_bytes = 0
        self._lock = threading.RLock()
        access = source._reader._access
        planes = tuple(replace(plane, decode=self._counting(plane.decode)) for plane in access.layout.planes)
        source._reader._access = replace(access, layout=replace(access.layout, planes=planes))

    def _counting(self, decode):
        def counted(data, index):
            chunk = decode(data, index)
            self._add(chunk.nbytes)
            weakref.finalize(chunk, self._add, -chunk.nbytes)
            return chunk

        return counted

    def _add(self, size_bytes: int) -> None:
        with self._lock:
            self.bytes += size_bytes
            self.peak_bytes = max(self.peak_bytes, self.bytes)


def sweep(source: TiffSource, plan: ReadPlan, image: np.ndarray) -> None:
    for box in boxes(plan):
        out = np.full((*box.shape, 3), 77, np.uint8)
        source.read(box, out)
        np.testing.assert_array_equal(out, image[box.slices()])


HALO_PLAN = ReadPlan(
    rows=[Span(max(0, y - 6), min(HEIGHT, y + 26)) for y in range(0, HEIGHT, 20)],
    columns=[Span(max(0, x - 6), min(WIDTH, x + 26)) for x in range(0, WIDTH, 20)],
)


@pytest.mark.parametrize("kind", ["tiles", "planar", "strips"])
@pytest.mark.parametrize("workers", [1, 3])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans())
@example(plan=HALO_PLAN)
def test_each_chunk_is_decoded_once_within_the_bytes_asked_for(files, image, kind, workers, plan):
    with closing(TiffSource(files[kind], workers=workers)) as source:
        live = LiveChunks(source)
        granted = source.cache_bytes(plan)
        source.prepare(plan, cache_bytes=granted)
        sweep(source, plan, image)
        needed = set().union(*(chunks_of(box, *CHUNK[kind]) for box in boxes(plan)))
        assert source.count().chunks_decoded == PLANES[kind] * len(needed)
        assert live.peak_bytes <= granted
        assert live.bytes == 0, "a chunk was kept after its last use"


@pytest.mark.parametrize("kind", ["tiles", "planar", "strips"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans(), chunks=st.integers(0, 12), workers=st.integers(1, 3))
@example(plan=HALO_PLAN, chunks=0, workers=2)
@example(plan=HALO_PLAN, chunks=5, workers=2)
def test_a_smaller_cache_decodes_again_but_never_holds_more(files, image, kind, plan, chunks, workers):
    with closing(TiffSource(files[kind], workers=workers)) as source:
        live = LiveChunks(source)
        granted = chunks * CHUNK_BYTES[kind]
        source.prepare(plan, cache_bytes=granted)
        sweep(source, plan, image)
        assert live.peak_bytes <= max(granted, workers * CHUNK_BYTES[kind])
        assert source._reader._cache.held_bytes >= 0


def test_the_bytes_asked_for_are_no_more_than_needed(files, image):
    """One chunk less than asked for, and some chunk of an ordinary plan is decoded twice."""
    with closing(TiffSource(files["tiles"], workers=1)) as source:
        source.prepare(HALO_PLAN, cache_bytes=source.cache_bytes(HALO_PLAN) - CHUNK_BYTES["tiles"])
        sweep(source, HALO_PLAN, image)
        assert source.count().chunks_decoded > source.count().chunks_stored


def test_a_cache_too_small_keeps_what_is_wanted_first(files, image):
    """A cache half as large as asked for still serves the neighbours: far fewer decodes than without any."""
    decoded = []
    for share in (0.0, 0.5, 1.0):
        with closing(TiffSource(files["tiles"], workers=1)) as source:
            least = source.decoding_bytes(HALO_PLAN)
            source.prepare(HALO_PLAN, cache_bytes=least + int(share * (source.cache_bytes(HALO_PLAN) - least)))
            sweep(source, HALO_PLAN, image)
            decoded.append(source.count().chunks_decoded)
    nothing, half, everything = decoded
    assert everything == 7 * 8
    assert nothing == sum(len(chunks_of(box, TILE, TILE)) for box in boxes(HALO_PLAN))
    assert half <= everything + (nothing - everything) * 0.4


def test_a_second_plan_starts_afresh(files, image):
    with closing(TiffSource(files["tiles"])) as source:
        for _ in range(2):
            source.prepare(HALO_PLAN, cache_bytes=source.cache_bytes(HALO_PLAN))
            assert source.count().chunks_decoded == 0
            sweep(source, HALO_PLAN, image)
            assert source.count().chunks_decoded == source.count().chunks_stored == 7 * 8


def test_boxes_left_out_of_a_plan_do_no_harm(files, image):
    """A run that is resumed skips boxes; others may be read twice."""
    with closing(TiffSource(files["tiles"])) as source:
        source.prepare(HALO_PLAN, cache_bytes=source.cache_bytes(HALO_PLAN))
        for box in boxes(HALO_PLAN)[::3] * 2:
            out = np.empty((*box.shape, 3), np.uint8)
            source.read(box, out)
            np.testing.assert_array_equal(out, image[box.slices()])


def test_without_a_plan_recent_chunks_are_kept(files, image):
    with closing(TiffSource(files["tiles"])) as source:
        for _ in range(3):
            out = np.empty((40, 40, 3), np.uint8)
            source.read(Box(Span(0, 40), Span(0, 40)), out)
            np.testing.assert_array_equal(out, image[:40, :40])
        assert source.count().chunks_decoded == 9


def test_uncompressed_chunks_ask_for_no_cache(tmp_path, image):
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb", tile=(TILE, TILE))
    with closing(TiffSource(tmp_path / "image.tif")) as source:
        assert source.cache_bytes(HALO_PLAN) == 0
        source.prepare(HALO_PLAN, cache_bytes=0)
        sweep(source, HALO_PLAN, image)
        assert (source.count().chunks_decoded, source.count().chunks_stored) == (0, 0)


def test_the_cache_evicts_what_is_wanted_last_and_never_what_is_pinned():
    cache = ChunkCache(3)
    for name, next_use in enumerate((5, 9, 7)):
        cache.put((0, 0, name), np.zeros(1, np.uint8), next_use)
    assert cache.pin([(0, 0, 1)])[0] is not None
    cache.put((0, 0, 3), np.zeros(1, np.uint8), 6)
    assert cache.pin([(0, 0, 2)]) == [None], "wanted at 7, the last of those not pinned"
    cache.put((0, 0, 4), np.zeros(1, np.uint8), 8)
    assert cache.pin([(0, 0, 4)]) == [None], "wanted later than all that is held"
    cache.unpin([((0, 0, 1), None)])
    cache.put((0, 0, 4), np.zeros(1, np.uint8), 8)
    assert cache.pin([(0, 0, 4)])[0] is not None
    assert cache.held_bytes == 3


def test_the_pool_stops_at_the_first_failure_and_goes_on_afterwards():
    pool = DecodePool(3)
    done = []

    def work(item: int) -> None:
        if item == 5:
            raise KeyError(item)
        done.append(item)

    with pytest.raises(KeyError):
        pool.for_each(work, range(10_000))
    assert len(done) < 5_000
    done.clear()
    pool.for_each(work, range(6, 106))
    assert sorted(done) == list(range(6, 106))
    pool.close()
    pool.close()
