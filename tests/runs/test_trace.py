"""``--trace``: what was done when, as Chrome and Perfetto read it, and the same that the summary adds up."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile

from exactile.doctor.small_network import bundle_path
from exactile.errors import SinkError
from exactile.geometry import Box, Span
from exactile.pipeline.timing import TimeSpan
from exactile.plan.tiles import Step
from exactile.trace import Trace
from tests.support.command import exactile as command

MODEL = bundle_path("labels")
SIZE = (360, 300)
STAGES = ("read", "infer", "write")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images, in tiles."""
    folder = tmp_path_factory.mktemp("images")
    for number in (1, 2):
        pixels = np.random.default_rng(number).integers(0, 8, (*SIZE, 3), dtype=np.uint8)
        tifffile.imwrite(folder / f"{number}.tif", pixels, tile=(64, 64), photometric="rgb")
    return folder


def run(folder: Path, target: Path, *arguments: object) -> tuple[dict, dict]:
    """Summary and trace of one image."""
    trace = target.with_suffix(".trace.json")
    done = command(
        "run", MODEL, folder / "1.tif", "-o", target, "--trace", trace, "--json", "--device", "cpu", *arguments
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), json.loads(trace.read_text())


def works(trace: dict, pid: int = 1) -> list[dict]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X" and event["pid"] == pid]


def check(trace: dict) -> None:
    """The structure that viewers need: every event placed, every track named once, nothing before the beginning."""
    assert trace.keys() == {"displayTimeUnit", "traceEvents"}
    names: dict[tuple[int, int], str] = {}
    for event in trace["traceEvents"]:
        assert event["ph"] in {"M", "X"}
        assert isinstance(event["pid"], int)
        if event["ph"] == "M" and event["name"] == "thread_name":
            assert (event["pid"], event["tid"]) not in names
            names[event["pid"], event["tid"]] = event["args"]["name"]
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {(event["pid"], event["tid"]) for event in complete} == names.keys()
    assert min(event["ts"] for event in complete) == 0
    for event in complete:
        assert event["dur"] >= 0
        assert len(event["args"]["tile"]) == len(event["args"]["zone"]) == 4
    for place in names:
        on_track = sorted((e["ts"], e["dur"]) for e in complete if (e["pid"], e["tid"]) == place)
        for (begin, duration), (following, _) in pairwise(on_track):
            assert begin + duration <= following + 1e-3  # one thing at a time on each


def seconds(trace: dict, name: str) -> float:
    return sum(event["dur"] for event in works(trace) if event["name"] == name) / 1e6


def overlapping(trace: dict) -> bool:
    """Whether something was read while another tile was inferred."""
    reads, infers = ([e for e in works(trace) if e["name"] == name] for name in ("read", "infer"))
    return any(
        read["ts"] < infer["ts"] + infer["dur"] and infer["ts"] < read["ts"] + read["dur"]
        for read in reads
        for infer in infers
    )


@pytest.fixture(scope="module")
def tiled(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("tiles") / "labels.npy"
    return run(folder, target, "--plan", "tile", "--tile", "64x96", "--lanes", 1)


def test_a_run_in_tiles_is_a_valid_trace(tiled):
    check(tiled[1])


def test_what_the_stages_did_adds_up_to_the_seconds_of_the_summary(tiled):
    summary, trace = tiled
    for stage in STAGES:
        assert seconds(trace, stage) == pytest.approx(summary["seconds"][stage], abs=1e-3)
    for stage in ("read", "infer"):
        assert len([event for event in works(trace) if event["name"] == stage]) == summary["tiles"]


def test_stages_overlap_and_the_tracks_are_in_the_order_of_the_work(tiled):
    trace = tiled[1]
    assert overlapping(trace)
    tracks = [e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] == "thread_name"]
    assert tracks == ["read", "cpu", "write"]


def test_each_piece_of_work_names_its_tile_and_the_zones_are_the_image(tiled):
    trace = tiled[1]
    zones = np.zeros(SIZE, int)
    for event in works(trace):
        top, bottom, left, right = event["args"]["tile"]
        assert (bottom - top, right - left) == (64, 96)
        if event["name"] == "write":
            top, bottom, left, right = event["args"]["zone"]
            zones[top:bottom, left:right] += 1
    assert (zones == 1).all()


def test_strips_name_their_role_and_band(folder, tmp_path):
    summary, trace = run(folder, tmp_path / "labels.npy", "--plan", "strip", "--tile", "40x160")
    check(trace)
    assert summary["bands"] > 1
    inferred = [event["args"] for event in works(trace) if event["name"] == "infer"]
    assert {args["strip"] for args in inferred} == {"first", "body", "last"}
    assert {args["band"] for args in inferred} == set(range(summary["bands"]))
    assert seconds(trace, "infer") == pytest.approx(summary["seconds"]["infer"], abs=1e-3)


def test_each_of_many_images_is_a_process_of_its_own(folder, tmp_path):
    done = command(
        "run", MODEL, folder, "-o", tmp_path / "out", "--trace", tmp_path / "trace.json", "--device", "cpu",
        "--plan", "tile", "--tile", "96",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trace = json.loads((tmp_path / "trace.json").read_text())
    check(trace)
    names = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    assert names == {1: str(folder / "1.tif"), 2: str(folder / "2.tif")}
    for number in (1, 2):
        assert {event["name"] for event in works(trace, number)} == set(STAGES)


def test_a_trace_is_written_again_in_whole(folder, tmp_path):
    run(folder, tmp_path / "labels.npy")
    run(folder, tmp_path / "labels.npy", "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.npy", "labels.trace.json"]


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a file system of 16 kB; the test is skipped where none may be mounted."""
    place = tmp_path / "full"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    made = mount and umount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=16k", "none", place], check=False)
    if not made or made.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run([umount, place], check=True)


def test_a_full_disk_is_told_and_the_result_is_kept(folder, tmp_path, full_disk):
    done = command(
        "run", MODEL, folder / "1.tif", "-o", tmp_path / "labels.tif", "--trace", full_disk / "trace.json",
        "--plan", "tile", "--tile", "96", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == SinkError.exit_status == 3
    assert f"cannot write {full_disk / 'trace.json'}: No space left on device" in done.stderr
    assert "the disk is full" in done.stderr
    assert "--resume" not in done.stderr
    assert tifffile.imread(tmp_path / "labels.tif").shape == SIZE
    assert "Mpx/s" in done.stdout
    assert list(full_disk.iterdir()) == []


def test_a_full_disk_takes_nothing_from_what_is_told_of_many_images(folder, tmp_path, full_disk):
    """All that was done is told on stdout, and images that failed on stderr beside the trace that did."""
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    done = command(
        "run", MODEL, folder, tmp_path / "broken.tif", "-o", tmp_path / "out", "--trace", full_disk / "trace.json",
        "--plan", "tile", "--tile", "96", "--device", "cpu", "--json",
    )  # fmt: skip
    assert done.returncode == 2
    assert [("error" in told) for told in json.loads(done.stdout)] == [False, False, True]
    assert "No space left on device" in done.stderr
    assert "1 of 3 images failed" in done.stderr


@pytest.mark.parametrize(
    ("trace", "status", "said"),
    [
        ("no/trace.json", 3, "no does not exist"),
        ("folder.json", 3, "folder.json: it is a folder"),
        ("labels.tif", 2, "--trace takes the name of a .json file"),
    ],
)
def test_what_cannot_become_a_trace_is_told_before_anything_is_computed(folder, tmp_path, trace, status, said):
    (tmp_path / "folder.json").mkdir()
    done = command("run", MODEL, folder / "1.tif", "-o", tmp_path / "labels.tif", "--trace", tmp_path / trace)
    assert done.returncode == status
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder.json"]


# --- the trace itself


def step(start: int) -> Step:
    box = Box(Span(start, start + 8), Span(0, 8))
    return Step(box, box, Box(Span(0, 8), Span(0, 8)))


def test_times_begin_at_the_first_work_of_all_images():
    trace = Trace()
    first, second = trace.of("a"), trace.of("b")
    second(TimeSpan("read", "read", 101.5, 102.0), (step(0),))
    first(TimeSpan("cpu", "infer", 101.0, 101.25), (step(0), step(8)))
    found = [event for event in trace.as_object()["traceEvents"] if event["ph"] == "X"]
    assert [(e["pid"], e["name"], e["ts"], e["dur"]) for e in found] == [
        (1, "infer", 0.0, 250_000.0),
        (2, "read", 500_000.0, 500_000.0),
    ]
    assert found[0]["args"]["tiles"] == 2


def test_streams_of_gpus_stand_between_reading_and_writing():
    trace = Trace()
    tell = trace.of("a")
    for track in ("write", "cuda:1 compute", "cuda:0 copy out", "read", "cuda:0 compute", "cuda:0 copy in"):
        tell(TimeSpan(track, "work", 0.0, 1.0), (step(0),))
    named = [e["args"]["name"] for e in trace.as_object()["traceEvents"] if e["name"] == "thread_name"]
    assert named == ["read", "cuda:0 copy in", "cuda:0 compute", "cuda:0 copy out", "cuda:1 compute", "write"]


def test_a_trace_of_nothing_is_valid(tmp_path):
    Trace().write(tmp_path / "trace.json")
    assert json.loads((tmp_path / "trace.json").read_text()) == {"displayTimeUnit": "ms", "traceEvents": []}


def test_names_of_images_may_hold_any_letter():
    trace = Trace()
    trace.of('sl"ide\n\udcff.tif')(TimeSpan("read", "read", 0.0, 0.5), (step(0),))
    assert json.loads(json.dumps(trace.as_object()))["traceEvents"]
