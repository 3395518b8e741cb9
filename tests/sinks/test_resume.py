"""A run that ended early is resumed, and ends in the very bytes of one that did not."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from exactile.errors import OutputExistsError, ResumeError, SinkError
from exactile.geometry import Box
from exactile.sinks.files import part_file
from exactile.sinks.resume import safekeeping
from exactile.sinks.resume.journal import Journal
from exactile.sinks.tiff import sink as tiff
from exactile.sinks.tiff import store as tiff_store
from exactile.sinks.tiff.sink import TiffSink
from exactile.sinks.tiff.tables import TileTable
from exactile.sinks.tiles import open_pieces
from tests.sinks.test_pixels import DTYPES, noise, partitions, row_major, spec_of, write

RUN = {"model": {"graph": "abc"}, "image": {"bytes": 7}}


def begun(path: Path, pixels: np.ndarray, *, resume: bool = False, run=RUN, **options) -> TiffSink:
    sink = TiffSink(path, resumable=True, **options)
    sink.describe(run, resume=resume)
    sink.begin(spec_of(pixels))
    return sink


def put(sink: TiffSink, pixels: np.ndarray, boxes: list[Box]) -> None:
    for box in boxes:
        if not sink.is_done(box):
            sink.write(box, pixels[(..., *box.slices())])


def as_killed(path: Path, target: Path) -> Path:
    """What a process killed now would leave of ``path``, in the folder ``target``."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for left in path.parent.glob(f".{path.name}.*"):
        shutil.copy(left, target / left.name)
    return target / path.name


@settings(max_examples=150, deadline=None)
@given(
    partition=partitions(),
    channels=st.integers(0, 3),
    dtype=st.sampled_from(DTYPES),
    compression=st.sampled_from(("zlib", "zstd", "lzw", "none")),
    suffix=st.sampled_from((".tif", ".ome.tif")),
    every=st.sampled_from((0, 0.002, 1)),
    data=st.data(),
)
def test_killed_anywhere_and_resumed_gives_the_same_bytes(
    tmp_path_factory, partition, channels, dtype, compression, suffix, every, data
):
    with mock.patch.object(safekeeping, "COMMIT_SECONDS", every):
        check_killed_anywhere(tmp_path_factory, partition, channels, dtype, compression, suffix, data)


def check_killed_anywhere(tmp_path_factory, partition, channels, dtype, compression, suffix, data) -> None:
    height, width, boxes = partition
    folder = tmp_path_factory.mktemp("kill")
    pixels = noise((channels, height, width) if channels else (height, width), dtype)
    options = {"tile": 16, "compression": compression, "workers": data.draw(st.integers(1, 2))}
    whole = begun(folder / f"a{suffix}", pixels, **options)
    reached = data.draw(st.integers(0, len(boxes)))
    put(whole, pixels, boxes[:reached])
    killed = as_killed(folder / f"a{suffix}", folder / "killed")
    put(whole, pixels, boxes[reached:])
    whole.finish()
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    for left in sorted(killed.parent.iterdir()):  # a power cut may also lose or damage the ends of both files
        torn = left.read_bytes()
        torn = torn[: len(torn) - random.integers(len(torn) // 3 + 1)]
        if torn and random.integers(2):
            at = random.integers(len(torn) // 2, len(torn))
            torn = torn[:at] + bytes([torn[at] ^ 0x10]) + torn[at + 1 :]
        if random.integers(3):
            left.write_bytes(torn)
    again = begun(killed, pixels, resume=True, **options)
    put(again, pixels, boxes)
    again.finish()
    assert killed.read_bytes() == (folder / f"a{suffix}").read_bytes()
    assert [path.name for path in killed.parent.iterdir()] == [killed.name]
    shutil.rmtree(folder)


@pytest.fixture
def claimed_at_once(monkeypatch):
    """Every box is claimed before the next one comes."""
    monkeypatch.setattr(safekeeping, "COMMIT_SECONDS", 0)
    put_one = TiffSink._put

    def put_and_wait(sink, *arguments) -> None:
        put_one(sink, *arguments)
        sink._queue.drain()
        if sink._safekeeping is not None:
            sink._safekeeping.check()

    monkeypatch.setattr(TiffSink, "_put", put_and_wait)


def after_power_cuts(path: Path, folder: Path, monkeypatch) -> list[Path]:
    """Grows with every write to the journal: what would be found if the power went then.

    The worst that a disk may do: of the output only what was synced, of the journal all.
    """
    found: list[Path] = []
    synced = [b""]
    sync, append = part_file.PartFile.sync, Journal.append

    def syncing(part) -> None:
        content = part.part_path.read_bytes()
        sync(part)
        synced[0] = content

    def appending(journal, records) -> None:
        append(journal, records)
        target = folder / str(len(found))
        target.mkdir()
        (target / f".{path.name}.part").write_bytes(synced[0])
        shutil.copy(journal.path, target / journal.path.name)
        found.append(target / path.name)

    monkeypatch.setattr(part_file.PartFile, "sync", syncing)
    monkeypatch.setattr(Journal, "append", appending)
    return found


@pytest.mark.usefixtures("claimed_at_once")
def test_after_a_power_cut_the_journal_claims_nothing_that_is_not_on_the_disk(tmp_path, monkeypatch):
    pixels, boxes = noise((200, 170), "uint8"), row_major(200, 170, 40, 60)
    with monkeypatch.context() as patched:
        cuts = after_power_cuts(tmp_path / "a.tif", tmp_path, patched)
        sink = begun(tmp_path / "a.tif", pixels, tile=32)
        put(sink, pixels, boxes)
        sink.finish()
    assert len(cuts) >= len(boxes)
    for cut in cuts[:: len(boxes) // 4]:
        journal = Journal(cut)
        claimed = [record for record, _ in journal.read() if isinstance(record, Box)]
        journal.close()
        again = begun(cut, pixels, resume=True, tile=32)
        assert [box for box in boxes if again.is_done(box)] == claimed
        put(again, pixels, boxes)
        again.finish()
        assert cut.read_bytes() == (tmp_path / "a.tif").read_bytes()


def test_what_waits_for_a_claim_is_bounded_by_pieces_and_bytes(tmp_path, monkeypatch):
    """Rows of one pixel leave many pieces in each tile; they are noted before a second is over, in small writes."""
    monkeypatch.setattr(open_pieces, "MOST_PIECES", 16)
    monkeypatch.setattr(safekeeping, "MOST_NOTED_BYTES", 256)
    pixels, boxes = noise((100, 80), "uint8"), row_major(100, 80, 1, 80)
    write(TiffSink(tmp_path / "whole.tif", tile=32), pixels, boxes)
    sink = begun(tmp_path / "a.tif", pixels, tile=32)
    put(sink, pixels, boxes[:50])
    killed = as_killed(tmp_path / "a.tif", tmp_path / "killed")
    sink.abort()
    again = begun(killed, pixels, resume=True, tile=32)
    assert sum(map(again.is_done, boxes)) > 20
    put(again, pixels, boxes)
    again.finish()
    assert killed.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_tile_that_was_lost_on_the_way_is_told_and_nothing_appears(tmp_path, monkeypatch):
    """Planted: a tile is counted as complete, and never stored."""
    pixels = noise((90, 80), "uint8")
    sink = begun(tmp_path / "a.tif", pixels, tile=16)
    submit, lost = TiffSink._submit_complete, []

    def losing(sink, placed) -> None:
        if placed.complete and not lost:
            lost.append(placed.tile)
        else:
            submit(sink, placed)

    monkeypatch.setattr(TiffSink, "_submit_complete", losing)
    put(sink, pixels, row_major(90, 80, 33, 80))
    with pytest.raises(SinkError, match="tiles were stored"):
        sink.finish()
    sink.abort()
    assert not (tmp_path / "a.tif").exists()


def test_what_is_done_is_not_written_again(tmp_path):
    pixels, boxes = noise((90, 80), "uint8"), row_major(90, 80, 33, 80)
    sink = begun(tmp_path / "a.tif", pixels, tile=16)
    put(sink, pixels, boxes[:2])
    sink.abort()
    assert sink.keeps
    assert TiffSink(tmp_path / "a.tif", resumable=True).unfinished()["model"] == RUN["model"]
    again = begun(tmp_path / "a.tif", pixels, resume=True, tile=16)
    assert [again.is_done(box) for box in boxes] == [True, True, False]
    with pytest.raises(SinkError, match="written before"):
        again.write(boxes[0], pixels[boxes[0].slices()])


def test_several_interruptions_add_up(tmp_path):
    pixels, boxes = noise((200, 170), "uint8"), row_major(200, 170, 23, 60)
    write(TiffSink(tmp_path / "whole.tif", tile=32), pixels, boxes)
    for reached in range(0, len(boxes) + 1, 3):
        sink = begun(tmp_path / "a.tif", pixels, resume=True, tile=32)
        put(sink, pixels, boxes[:reached])
        sink.abort()
    sink = begun(tmp_path / "a.tif", pixels, resume=True, tile=32)
    put(sink, pixels, boxes)
    sink.finish()
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_an_early_end_before_anything_is_done_leaves_nothing(tmp_path):
    sink = begun(tmp_path / "a.tif", noise((90, 80), "uint8"))
    sink.abort()
    assert not sink.keeps
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unfinished(tmp_path):
    """The pixels, and a path at which half of them are written."""
    pixels = noise((90, 80), "uint8")
    sink = begun(tmp_path / "a.tif", pixels, tile=16)
    put(sink, pixels, row_major(90, 80, 33, 40)[:4])
    sink.abort()
    return pixels, tmp_path / "a.tif"


def test_without_resume_it_is_kept_and_told(unfinished):
    pixels, path = unfinished
    with pytest.raises(OutputExistsError, match="resume it with --resume, or start again with --overwrite"):
        begun(path, pixels, tile=16)
    assert TiffSink(path, resumable=True).unfinished() is not None


def test_overwrite_starts_anew(unfinished):
    pixels, path = unfinished
    sink = begun(path, pixels, tile=16, overwrite=True)
    assert not sink.is_done(row_major(90, 80, 33, 40)[0])
    put(sink, pixels, row_major(90, 80, 90, 80))
    sink.finish()
    np.testing.assert_array_equal(tifffile.imread(path), pixels)
    assert [left.name for left in path.parent.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(
    ("run", "options", "says"),
    [
        ({**RUN, "model": {"graph": "xyz"}}, {"tile": 16}, "model.graph: was abc, is xyz"),
        ({**RUN, "image": {"bytes": 8}}, {"tile": 16}, "image.bytes: was 7, is 8"),
        ({"model": RUN["model"]}, {"tile": 16}, "image: was .*, is not given"),
        (RUN, {"tile": 32}, "output.tile: was 16, is 32"),
        (RUN, {"tile": 16, "compression": "lzw"}, "output.compression: was zlib, is lzw"),
    ],
)
def test_another_run_is_refused_with_what_differs_and_nothing_is_lost(unfinished, run, options, says):
    pixels, path = unfinished
    before = {left.name: left.read_bytes() for left in path.parent.iterdir()}
    with pytest.raises(ResumeError, match=says) as caught:
        begun(path, pixels, resume=True, run=run, **options)
    assert caught.value.exit_status == 2
    assert {left.name: left.read_bytes() for left in path.parent.iterdir()} == before


def test_two_runs_at_once_are_refused(tmp_path):
    pixels = noise((90, 80), "uint8")
    first = begun(tmp_path / "a.tif", pixels)
    with pytest.raises(SinkError, match="another run is writing it"):
        begun(tmp_path / "a.tif", pixels, resume=True)
    first.abort()


@pytest.mark.usefixtures("claimed_at_once")
def test_killed_between_the_name_and_the_end_is_complete(tmp_path):
    pixels, boxes = noise((90, 80), "uint8"), row_major(90, 80, 33, 40)
    sink = begun(tmp_path / "a.tif", pixels, tile=16)
    put(sink, pixels, boxes)
    journal = (tmp_path / ".a.tif.journal").read_bytes()
    sink.finish()
    (tmp_path / ".a.tif.journal").write_bytes(journal)
    assert TiffSink(tmp_path / "a.tif", resumable=True).unfinished() is None
    with pytest.raises(OutputExistsError, match="exists already"):
        begun(tmp_path / "a.tif", pixels, resume=True, tile=16)
    assert [left.name for left in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.usefixtures("claimed_at_once")
@pytest.mark.parametrize("moment", ["before the tables", "within the tables", "after the tables"])
def test_killed_while_the_file_is_completed_it_is_completed_again(tmp_path, monkeypatch, moment):
    pixels, boxes = noise((90, 80), "uint8"), row_major(90, 80, 33, 40)
    fill = tiff_store.fill_tile_tables

    def filling(path, tables):
        half = [TileTable(table.offsets_bytes // 2 + 1, table.sizes_bytes // 2 + 1) for table in tables]
        if moment != "before the tables":
            fill(path, half if moment == "within the tables" else tables)
        as_killed(tmp_path / "a.tif", tmp_path / "killed")
        fill(path, tables)

    monkeypatch.setattr(tiff_store, "fill_tile_tables", filling)
    sink = begun(tmp_path / "a.tif", pixels, tile=16)
    put(sink, pixels, boxes)
    sink.finish()
    monkeypatch.setattr(tiff_store, "fill_tile_tables", fill)
    again = begun(tmp_path / "killed" / "a.tif", pixels, resume=True, tile=16)
    assert all(again.is_done(box) for box in boxes)
    again.finish()
    assert (tmp_path / "killed" / "a.tif").read_bytes() == (tmp_path / "a.tif").read_bytes()


@pytest.mark.usefixtures("claimed_at_once")
def test_a_full_disk_keeps_what_is_done(tmp_path, monkeypatch):
    pixels, boxes = noise((400, 80), "uint8"), row_major(400, 80, 33, 80)
    write(TiffSink(tmp_path / "whole.tif", tile=16), pixels, boxes)
    sink = begun(tmp_path / "a.tif", pixels, tile=16)
    put(sink, pixels, boxes[:6])
    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(SinkError, match="disk is full"):
            put(sink, pixels, boxes[6:])
        sink.abort()
    assert sink.keeps
    again = begun(tmp_path / "a.tif", pixels, resume=True, tile=16)
    put(again, pixels, boxes)
    again.finish()
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_a_journal_of_noise_is_no_journal(tmp_path):
    (tmp_path / ".a.tif.journal").write_bytes(np.random.default_rng(0).bytes(5000))
    journal = Journal(tmp_path / "a.tif")
    assert journal.run() is None
    assert list(journal.read()) == []
    journal.close()


def test_a_damaged_gap_before_the_first_tile_is_written_again(tmp_path):
    """Every byte between the tables and the first tile, which no checksum covers."""
    pixels, boxes = noise((40, 40), "uint8"), row_major(40, 40, 16, 40)
    whole = begun(tmp_path / "whole.tif", pixels, tile=16)
    put(whole, pixels, boxes)
    whole.finish()
    with tifffile.TiffFile(tmp_path / "whole.tif") as tiff:
        first_tile = min(offset for page in tiff.pages for offset in page.dataoffsets)
    sink = begun(tmp_path / "a.tif", pixels, tile=16)
    put(sink, pixels, boxes[:1])
    sink.abort()
    part = tmp_path / ".a.tif.part"
    part.write_bytes(b"\xff" * first_tile + part.read_bytes()[first_tile:])
    again = begun(tmp_path / "a.tif", pixels, resume=True, tile=16)
    put(again, pixels, boxes[1:])
    again.finish()
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_killed_twice_while_tiles_are_being_compressed(tmp_path, monkeypatch):
    """Pieces of a box that is not done yet are not counted twice when it comes again."""
    monkeypatch.setattr(safekeeping, "COMMIT_SECONDS", 0)
    encoder = tiff.tile_encoder

    def slow(*options):
        encode = encoder(*options)

        def encode_slowly(tile: np.ndarray) -> bytes:
            time.sleep(0.003)
            return encode(tile)

        return encode_slowly

    monkeypatch.setattr(tiff, "tile_encoder", slow)
    pixels, boxes = noise((200, 170), "uint8"), row_major(200, 170, 40, 40)
    options = {"tile": 32, "workers": 1}
    whole = begun(tmp_path / "a.tif", pixels, **options)
    put(whole, pixels, boxes)
    whole.finish()
    sink, path = begun(tmp_path / "0.tif", pixels, **options), tmp_path / "0.tif"
    for number, reached in enumerate((6, 12, 18)):
        put(sink, pixels, boxes[:reached])
        killed = as_killed(path, tmp_path / f"killed {number}")
        sink.abort()
        sink, path = begun(killed, pixels, resume=True, **options), killed
    put(sink, pixels, boxes)
    sink.finish()
    assert path.read_bytes() == (tmp_path / "a.tif").read_bytes()
