"""Outputs appear complete or not at all, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from exactile.errors import OptionError, OutputExistsError, SinkError
from exactile.geometry import Box, Span
from exactile.sinks.array import ArraySink
from exactile.sinks.npy import NpySink
from exactile.sinks.open import check_target, open_sink
from exactile.sinks.protocol import ResultSpec, WritePlan
from exactile.sinks.tiff import sink as tiff_module
from exactile.sinks.tiff import store as tiff_store
from exactile.sinks.tiff.sink import TiffSink

HEIGHT, WIDTH = 100, 120
SPEC = ResultSpec(height=HEIGHT, width=WIDTH, channels=0, dtype="uint8")
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), "uint8")
BOXES = [
    Box(Span(y, min(HEIGHT, y + 33)), Span(x, min(WIDTH, x + 50)))
    for y in range(0, HEIGHT, 33)
    for x in range(0, WIDTH, 50)
]
NAMES = ("a.tif", "a.ome.tif", "a.npy")
both_kinds = pytest.mark.parametrize("name", ["a.tif", "a.npy"])


def make(path: Path, **options):
    return NpySink(path, **options) if path.suffix == ".npy" else TiffSink(path, tile=16, **options)


def read(path: Path) -> np.ndarray:
    return np.load(path) if path.suffix == ".npy" else tifffile.imread(path)


def put(sink, boxes=BOXES) -> None:
    for box in boxes:
        sink.write(box, PIXELS[box.slices()])


def write_all(path: Path, **options) -> None:
    write_to_the_end(make(path, **options))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_to_the_end(sink, boxes=None) -> None:
    sink.begin(SPEC)
    put(sink, BOXES if boxes is None else boxes)
    sink.finish()


def fail_with(code: int):
    def failing(*_args, **_options):
        raise OSError(code, os.strerror(code))

    return failing


@both_kinds
def test_while_writing_there_is_only_a_named_part_file_and_after_it_only_the_output(tmp_path, name):
    sink = make(tmp_path / name)
    sink.begin(SPEC)
    put(sink)
    (part,) = names(tmp_path)
    assert part.startswith(f".{name}.")
    assert part.endswith(".part")
    sink.finish()
    assert names(tmp_path) == [name]
    np.testing.assert_array_equal(read(tmp_path / name), PIXELS)


@both_kinds
def test_abort_leaves_nothing_at_any_time_and_twice(tmp_path, name):
    for boxes in ((), BOXES[:1], BOXES[:5], BOXES):
        sink = make(tmp_path / name)
        sink.abort()
        sink = make(tmp_path / name)
        sink.begin(SPEC)
        put(sink, boxes)
        sink.abort()
        sink.abort()
        assert names(tmp_path) == []
        with pytest.raises(SinkError, match="not open"):
            sink.finish()
        with pytest.raises(SinkError, match="not open"):
            put(sink, BOXES[:1])


@both_kinds
def test_abort_after_finish_keeps_the_output(tmp_path, name):
    sink = make(tmp_path / name)
    sink.begin(SPEC)
    put(sink)
    sink.finish()
    sink.abort()
    np.testing.assert_array_equal(read(tmp_path / name), PIXELS)


def test_abort_ends_the_threads_while_tiles_are_being_encoded(tmp_path, monkeypatch):
    started, go_on = threading.Event(), threading.Event()
    encoded = []

    def encode(tile: np.ndarray) -> bytes:
        encoded.append(tile)
        started.set()
        assert go_on.wait(10)
        return tile.tobytes()

    monkeypatch.setattr(tiff_module, "tile_encoder", lambda *_: encode)
    sink = TiffSink(tmp_path / "a.tif", tile=16, compression="none", workers=2)
    sink.begin(SPEC)
    put(sink, [Box(Span(0, 16), Span(0, 5 * 16))])
    assert started.wait(10)
    threading.Timer(0.05, go_on.set).start()
    sink.abort()
    assert len(encoded) <= 2  # those in the threads' hands; queued ones were dropped
    assert names(tmp_path) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("exactile-encode")]


@both_kinds
def test_abort_from_another_thread_during_writes_leaves_nothing(tmp_path, name):
    for _ in range(10):
        sink = make(tmp_path / name)
        sink.begin(SPEC)
        aborter = threading.Thread(target=sink.abort)
        aborter.start()
        try:
            put(sink)
        except SinkError as error:
            assert "not open" in str(error)  # noqa: PT017 -- it may also come too late to be seen
        aborter.join()
        assert names(tmp_path) == []


@both_kinds
def test_finish_ends_the_threads(tmp_path, name):
    write_all(tmp_path / name)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("exactile-encode")]


@both_kinds
def test_an_existing_output_is_refused_and_kept(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="--overwrite") as caught:
        make(tmp_path / name).begin(SPEC)
    assert caught.value.exit_status == 2
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"precious"


@both_kinds
def test_an_output_to_overwrite_stays_until_the_new_one_is_complete(tmp_path, name):
    (tmp_path / name).write_bytes(b"precious")
    for end in ("abort", "finish"):
        sink = make(tmp_path / name, overwrite=True)
        sink.begin(SPEC)
        put(sink)
        assert (tmp_path / name).read_bytes() == b"precious"
        getattr(sink, end)()
    assert names(tmp_path) == [name]
    np.testing.assert_array_equal(read(tmp_path / name), PIXELS)


@both_kinds
def test_an_output_that_appears_during_the_run_is_kept(tmp_path, name):
    sink = make(tmp_path / name)
    sink.begin(SPEC)
    put(sink)
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        sink.finish()
    sink.abort()
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"precious"


@both_kinds
def test_a_link_stays_a_link_to_the_new_file(tmp_path, name):
    (tmp_path / "disk").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "disk" / f"real{Path(name).suffix}")
    write_all(tmp_path / name)
    assert (tmp_path / name).is_symlink()
    np.testing.assert_array_equal(read(tmp_path / "disk" / f"real{Path(name).suffix}"), PIXELS)
    with pytest.raises(OutputExistsError):
        make(tmp_path / name).begin(SPEC)


@both_kinds
def test_the_output_has_the_permissions_of_any_new_file(tmp_path, name):
    write_all(tmp_path / name)
    (tmp_path / "other").touch()
    assert (tmp_path / name).stat().st_mode == (tmp_path / "other").stat().st_mode


@both_kinds
def test_a_changed_working_directory_does_not_move_the_output(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    sink = make(Path(name))
    sink.begin(SPEC)
    monkeypatch.chdir(tmp_path / "elsewhere")
    put(sink)
    sink.finish()
    np.testing.assert_array_equal(read(tmp_path / name), PIXELS)


@pytest.mark.parametrize("name", [*NAMES, "array"])
def test_missing_pixels_are_refused_with_their_number(tmp_path, name):
    sink = ArraySink() if name == "array" else make(tmp_path / name)
    sink.begin(SPEC)
    put(sink, BOXES[:-1])
    with pytest.raises(SinkError, match=f"{BOXES[-1].area} of {HEIGHT * WIDTH} pixels"):
        sink.finish()
    sink.abort()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", [*NAMES, "array"])
@pytest.mark.parametrize(
    "again",
    [BOXES[0], Box(Span(32, 33), Span(49, 50)), Box(Span(0, HEIGHT), Span(0, 1)), Box(Span(99, 100), Span(119, 120))],
)
def test_a_pixel_written_twice_is_refused_even_if_another_is_missing(tmp_path, name, again):
    sink = ArraySink() if name == "array" else make(tmp_path / name)
    sink.begin(SPEC)
    last = BOXES[-1]
    put(sink, [*BOXES[:-1], Box(last.y, Span(last.x.stop - 1, last.x.stop))])  # the rest of the last box is missing
    with pytest.raises(SinkError, match="written before"):
        put(sink, [again])
    with pytest.raises(SinkError):
        sink.finish()
    sink.abort()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", [*NAMES, "array"])
def test_blocks_that_do_not_fit_are_refused(tmp_path, name):
    def begun():
        sink = ArraySink() if name == "array" else make(tmp_path / name, overwrite=True)
        sink.begin(SPEC)
        return sink

    outside = Box(Span(90, 101), Span(0, 10))
    with pytest.raises(SinkError, match="rows 90 to 101"):
        begun().write(outside, np.zeros((11, 10), "uint8"))
    with pytest.raises(SinkError, match=r"\(33, 49\)"):
        begun().write(BOXES[0], np.zeros((33, 49), "uint8"))
    with pytest.raises(SinkError, match="int64"):
        begun().write(BOXES[0], np.zeros((33, 50), "int64"))
    with pytest.raises(SinkError, match="before"):
        begun().begin(SPEC)


@pytest.mark.parametrize("name", [*NAMES, "array"])
def test_a_result_without_pixels_is_refused(tmp_path, name):
    sink = ArraySink() if name == "array" else make(tmp_path / name)
    with pytest.raises(SinkError, match="no pixels"):
        sink.begin(ResultSpec(height=0, width=5, channels=0, dtype="uint8"))
    assert names(tmp_path) == []


def test_an_array_is_there_only_after_finish():
    sink = ArraySink()
    with pytest.raises(SinkError):
        _ = sink.result
    sink.begin(SPEC)
    put(sink)
    with pytest.raises(SinkError):
        _ = sink.result
    assert sink.buffer_bytes(SPEC, WritePlan(rows=[], columns=[])) == PIXELS.nbytes
    sink.finish()
    sink.abort()
    np.testing.assert_array_equal(sink.result, PIXELS)


def test_an_array_beyond_memory_is_refused():
    with pytest.raises(SinkError, match="write it to a file"):
        ArraySink().begin(ResultSpec(height=2**29, width=2**29, channels=8, dtype="float32"))


@both_kinds
@pytest.mark.parametrize("successes", [0, 1, 3, 6])
def test_a_disk_that_fills_up_stops_the_run_and_leaves_nothing(tmp_path, monkeypatch, name, successes):
    calls = 0

    def until_full(real):
        def write(*args):
            nonlocal calls
            calls += 1
            return real(*args) if calls <= successes else fail_with(errno.ENOSPC)()

        return write

    for name_of_call in ("pwrite", "pwritev"):
        monkeypatch.setattr(os, name_of_call, until_full(getattr(os, name_of_call)))
    sink = make(tmp_path / name)
    with pytest.raises(SinkError, match=f"(?s){name}.*No space left.*free some space") as caught:
        write_to_the_end(sink)
    assert caught.value.exit_status == 3
    with pytest.raises(SinkError):  # space that turns up later does not bring the lost block back
        sink.finish()
    sink.abort()
    assert names(tmp_path) == []


@both_kinds
def test_a_lost_tile_is_never_published_even_if_all_later_writes_succeed(tmp_path, monkeypatch, name):
    sink = make(tmp_path / name)
    sink.begin(SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail_with(errno.EIO))
        patch.setattr(os, "pwritev", fail_with(errno.EIO))
        with pytest.raises(SinkError):
            put(sink, BOXES[:6])
    with pytest.raises(SinkError, match="earlier write failed"):
        put(sink, BOXES[6:])
    with pytest.raises(SinkError, match="earlier write failed"):
        sink.finish()
    sink.abort()
    assert names(tmp_path) == []


@both_kinds
@pytest.mark.parametrize(("function", "code"), [("fsync", errno.EIO), ("open", errno.EACCES), ("open", errno.EROFS)])
def test_whatever_the_system_refuses_is_told_and_leaves_nothing(tmp_path, monkeypatch, name, function, code):
    sink = make(tmp_path / name)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail_with(code))
        with pytest.raises(SinkError, match=os.strerror(code)):
            write_to_the_end(sink)
    sink.abort()
    assert names(tmp_path) == []


def test_a_full_disk_shows_at_once_where_the_size_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", fail_with(errno.ENOSPC))
    for sink in (NpySink(tmp_path / "a.npy"), TiffSink(tmp_path / "a.tif", compression="none")):
        with pytest.raises(SinkError, match="No space left"):
            sink.begin(SPEC)
        assert names(tmp_path) == []


@both_kinds
def test_file_systems_without_preallocation_do(tmp_path, monkeypatch, name):
    monkeypatch.setattr(os, "posix_fallocate", fail_with(errno.EOPNOTSUPP))
    write_all(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), PIXELS)


@both_kinds
def test_writes_that_take_only_a_part_are_continued(tmp_path, monkeypatch, name):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:7], offset))
    write_all(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), PIXELS)


@pytest.mark.parametrize("moment", ["begin", "finish"])
def test_tifffile_failing_leaves_nothing(tmp_path, monkeypatch, moment):
    module, function = {"begin": (tiff_module, "empty_tiff"), "finish": (tiff_store, "fill_tile_tables")}[moment]
    monkeypatch.setattr(module, function, fail_with(errno.ENOSPC))
    sink = TiffSink(tmp_path / "a.tif")
    with pytest.raises(SinkError, match="No space left"):
        write_to_the_end(sink)
    sink.abort()
    assert names(tmp_path) == []


def test_an_encoder_that_fails_is_reported_by_a_later_write_or_by_finish(tmp_path, monkeypatch):
    def encode(tile: np.ndarray) -> bytes:
        raise RuntimeError("no such codec")

    monkeypatch.setattr(tiff_module, "tile_encoder", lambda *_: encode)
    for boxes in (BOXES, [Box(Span(0, HEIGHT), Span(0, WIDTH))]):
        sink = TiffSink(tmp_path / "a.tif", tile=64)
        with pytest.raises(SinkError, match="no such codec"):
            write_to_the_end(sink, boxes)
        with pytest.raises(SinkError):
            sink.finish()
        sink.abort()
        assert names(tmp_path) == []


RUN = """
import os, resource, sys
import numpy as np
from exactile.errors import SinkError
from exactile.geometry import Box, Span
from exactile.sinks.open import open_sink
from exactile.sinks.protocol import ResultSpec
path, end = sys.argv[1:]
if end == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sink = open_sink(path)
pixels = np.random.default_rng(0).integers(0, 256, (1024, 1024), "uint8")
try:
    sink.begin(ResultSpec(height=1024, width=1024, channels=0, dtype="uint8"))
    for y in range(0, 1024, 64):
        sink.write(Box(Span(y, y + 64), Span(0, 1024)), pixels[y : y + 64])
    if end == "kill":
        os.kill(os.getpid(), 9)
    sink.finish()
except SinkError as error:
    print(error)
    sink.abort()
"""


def run(path: Path, end: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, path, end], check=False, capture_output=True, text=True
    )


@both_kinds
def test_a_file_size_limit_is_told_and_leaves_nothing(tmp_path, name):
    done = run(tmp_path / name, "limit")
    assert done.stderr == ""
    assert "File too large" in done.stdout
    assert "ulimit" in done.stdout
    assert names(tmp_path) == []


@both_kinds
def test_a_killed_run_leaves_only_the_part_file(tmp_path, name):
    assert run(tmp_path / name, "kill").returncode == -9
    (left,) = names(tmp_path)
    assert left.startswith(f".{name}.")
    assert left.endswith(".part")


@pytest.mark.parametrize("name", NAMES)
def test_a_target_that_cannot_be_is_refused_before_the_work(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / f"pipe_{name}")
    for path, reason in (
        (tmp_path / "missing" / name, "does not exist"),
        (tmp_path / "file" / name, "is not a folder"),
        (tmp_path / name, "it is a folder"),
        (tmp_path / f"pipe_{name}", "pipe"),
        (tmp_path / f"{'n' * 300}{name}", "name is too long"),
    ):
        for attempt in (lambda path=path: make(path, overwrite=True).begin(SPEC), lambda path=path: check(path)):
            with pytest.raises(SinkError, match=reason):
                attempt()
    assert names(tmp_path) == sorted([name, "file", f"pipe_{name}"])


def check(path: Path) -> None:
    check_target(path, overwrite=True)


def test_check_target_refuses_what_exists_unless_it_may_be_overwritten(tmp_path):
    (tmp_path / "a.tif").touch()
    with pytest.raises(OutputExistsError):
        check_target(tmp_path / "a.tif")
    check_target(tmp_path / "a.tif", overwrite=True)
    check_target(str(tmp_path / "b.tif"))
    assert names(tmp_path) == ["a.tif"]


def test_check_target_refuses_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SinkError, match="you may not write"):
        check_target(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.tif", TiffSink),
        ("a.TIFF", TiffSink),
        ("a.ome.tif", TiffSink),
        ("a.ome.tiff", TiffSink),
        ("a.npy", NpySink),
        ("a.b.NPY", NpySink),
    ],
)
def test_the_suffix_chooses_the_sink(tmp_path, name, kind):
    assert type(open_sink(tmp_path / name)) is kind
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.png", "a", ".tif", "a.tif.gz"])
def test_other_suffixes_are_refused_with_those_there_are(tmp_path, name):
    for function in (open_sink, check_target):
        with pytest.raises(OptionError, match=r"\.ome\.tif.*\.npy"):
            function(tmp_path / name)


def test_tiff_options_reach_the_file_and_are_refused_for_npy(tmp_path):
    sink = open_sink(tmp_path / "a.tif", compression="lzw", tile=48)
    sink.begin(SPEC)
    put(sink)
    sink.finish()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert (tiff.pages[0].compression, tiff.pages[0].tile) == (5, (48, 48))
    for options in ({"compression": "lzw"}, {"tile": 48}):
        with pytest.raises(OptionError, match="neither compression nor tiles"):
            open_sink(tmp_path / "a.npy", **options)
    with pytest.raises(OptionError, match="zstd"):
        open_sink(tmp_path / "a.tif", compression="jpeg")


def test_opening_a_sink_imports_neither_tifffile_nor_codecs():
    code = (
        "import sys, exactile.sinks.open as o; o.open_sink('a.tif'); "
        "assert not {'tifffile', 'imagecodecs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
