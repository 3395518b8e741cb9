"""Runs that end before the first box of their result: what they had found is not found again, to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import exactile.passes.found as keeping
from exactile.cli.main import app
from exactile.contract import DeployedModel, ImageStatistics
from exactile.contract.statistic import Statistic
from exactile.errors import BudgetError, OptionError, OutputExistsError, ResumeError, SinkError
from exactile.passes.found import BegunLevel, Found, passes_to_run
from exactile.passes.merge import Merged
from exactile.passes.planner import PassPlanner
from exactile.passes.run import Passes
from exactile.pipeline.partials_compute import PartialsLane
from exactile.session import Session
from exactile.sinks.files.found_file import FoundFile
from exactile.sinks.tiff.sink import TiffSink
from exactile.sinks.zarr.sink import ZarrSink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization
from tests.passes.test_passes import deployed, image_of, small_tile
from tests.runs.test_resume import content, session_of
from tests.support.folders import ROOT
from tests.support.global_nets import chain

SIZE = (60, 40)
LEVELS = 2


class StoppedError(Exception):
    """Somebody pulled the plug."""


def failing_after(loads: int, error: type[BaseException]) -> Callable[..., Any]:
    """``PartialsLane.start`` that raises ``error`` after so many loads, when what came before has been merged."""
    started, done = PartialsLane.start, count()

    def start(lane, load):
        if next(done) >= loads:
            time.sleep(0.2)
            raise error
        return started(lane, load)

    return start


class StoppingSource(ArraySource):
    """Counts reads, and stops the run at the one after ``reads``."""

    def __init__(self, array: np.ndarray, reads: int = 1 << 30) -> None:
        super().__init__(array)
        self.left, self.count_of_reads = reads, 0

    def read(self, box, out) -> None:
        if not self.left:
            time.sleep(0.2)  # what was read is computed meanwhile
            self.stop()
        self.left -= 1
        self.count_of_reads += 1
        super().read(box, out)

    def stop(self) -> None:
        raise StoppedError


def model(block: str = "instance_norm", *, kept: bool = False, times: int = LEVELS) -> DeployedModel:
    """With statistics of two levels; its passes all begin at the image, unless maps are ``kept``."""
    found = deployed(chain(block, times=times), SIZE)
    assert found.keeping is not None
    return found if kept else replace(found, keeping=None)


def tile_of(found: DeployedModel) -> tuple[int, int]:
    return small_tile(found if found.keeping is None else found.keeping.at(SIZE), SIZE)


@dataclass
class Runs:
    """Runs of one model over one image into ``folder``."""

    found: DeployedModel
    folder: Path
    suffix: str = ".tif"
    image: np.ndarray = field(default_factory=lambda: image_of(SIZE))

    def run(self, name: str, *, reads: int = 1 << 30, resume: bool = False, overwrite: bool = False, **options):
        """A run into ``name``, its summary and how often it read; stopped after ``reads``."""
        kind = ZarrSink if self.suffix == ".zarr" else TiffSink
        sink = kind(self.folder / f"{name}{self.suffix}", tile=32, resumable=True, overwrite=overwrite)
        source = StoppingSource(self.image, reads)
        session = Session(self.found, memory_bytes=8 << 30)
        summary = session.segment(source, sink, plan="tile", tile=tile_of(self.found), resume=resume, **options)
        return summary, source.count_of_reads

    def stopped(self, name: str, reads: int, **options) -> None:
        with pytest.raises(StoppedError):
            self.run(name, reads=reads, **options)

    def content(self, name: str) -> dict[str, bytes]:
        return content(self.folder / f"{name}{self.suffix}")

    def left(self, name: str) -> list[str]:
        return sorted(path.name for path in self.folder.glob(f".{name}*"))


STATISTICS = [
    Statistic(kind="mean", channels=6, groups=3, inputs=("a",), shapes=((1, 3, 1, 1),)),
    Statistic(kind="sum", channels=4, groups=4, inputs=("b",), shapes=((1, 4),)),
    Statistic(kind="maximum", channels=4, groups=1, inputs=("c",), shapes=((1, 1),)),
    Statistic(kind="minimum", channels=2, groups=2, inputs=("d",), shapes=((1, 2),)),
    Statistic(kind="moments", channels=4, groups=2, inputs=("e", "f"), shapes=((1, 4), (1, 4))),
    Statistic(kind="mean", channels=2, groups=2, inputs=("g",), shapes=((1, 2, 2, 3),), grid=(2, 3)),
    Statistic(kind="maximum", channels=2, groups=2, inputs=("h",), shapes=((1, 2, 3, 1),), grid=(3, 1)),
]


def partials(random: np.random.Generator) -> np.ndarray:
    """Of one zone; some bins of a grid are not in it."""
    found = []
    for one in STATISTICS:
        pixels = random.integers(0, 3, one.bins) if one.bins > 1 else np.array([random.integers(1, 9)])
        numbers = random.normal(size=one.numbers - one.bins) * 10.0 ** random.integers(-3, 12)
        found += [pixels, numbers]
    return np.concatenate(found).astype(np.float64)


@pytest.mark.parametrize("odd", [None, np.nan, np.inf])
def test_merging_goes_on_from_its_state_to_the_same_bits(odd):
    """Of every kind of statistic, after any number of zones."""
    random = np.random.default_rng(3)
    zones = [partials(random) for _ in range(7)]
    if odd is not None:
        zones[3][::5] = odd
    for reached in range(len(zones) + 1):
        straight, before, after = (Merged(STATISTICS) for _ in range(3))
        for zone in zones[:reached]:
            before.add(zone)
        state = before.state()
        for zone in zones[reached:]:
            before.add(zone)  # what was given is a copy
        after.restore(state)
        for zone in zones[reached:]:
            after.add(zone)
        for zone in zones:
            straight.add(zone)
        assert after.state().tobytes() == straight.state().tobytes() == before.state().tobytes()
        for name, values in straight.values().items():
            assert values.tobytes() == after.values()[name].tobytes(), name
    with pytest.raises(ValueError, match="numbers"):
        Merged(STATISTICS[:2]).restore(state)


def test_a_file_that_is_cut_off_or_damaged_counts_as_none(tmp_path):
    file = FoundFile(tmp_path / "a.tif")
    assert file.read() is None
    assert not file.damaged
    found = {"statistics": {"values": [0.1, float("inf"), -0.0]}, "name": "é"}
    file.write(found)
    assert file.read() == found
    assert [path.name for path in tmp_path.iterdir()] == [".a.tif.statistics"]
    whole = file.path.read_bytes()
    for length in range(len(whole)):
        file.path.write_bytes(whole[:length])
        assert file.read() is None
        assert file.damaged
    for at in range(len(whole)):
        file.path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert file.read() is None
    file.write({})
    assert file.read() == {}
    file.remove()
    file.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_a_pass_goes_on_where_it_was(tmp_path, suffix):
    """Stopped in either level, between, and before the result: zones that are merged are not read again."""
    runs = Runs(model(), tmp_path, suffix)
    straight, reads = runs.run("whole")
    first, second = (one.tiles for one in straight.passes)
    assert min(first, second) > 8
    assert reads == first + second + straight.tiles
    stops = (1, first - 1, first, first + 5, first + second - 1, first + second)
    for stop in stops if suffix == ".tif" else stops[3:]:
        name = f"stop{stop}"
        runs.stopped(name, stop)
        assert runs.left(name) == [f".{name}{suffix}.statistics"]
        told: list[tuple[int, int]] = []
        summary, again = runs.run(
            name, resume=True, measuring=lambda done, total, told=told: told.append((done, total))
        )
        assert runs.content(name) == runs.content("whole")
        assert runs.left(name) == []
        kept = reads - again
        assert stop - 8 <= kept <= stop
        finished = 0 if stop < first else first if stop < first + second else first + second
        assert [one.tiles for one in summary.passes] == [first, second][LEVELS - len(summary.passes) :]
        assert kept == finished + sum(one.kept_tiles for one in summary.passes)
        if kept < first + second:
            assert told[0][0] >= (finished > 0) * SIZE[0] * SIZE[1]
            assert told[-1] == (LEVELS * SIZE[0] * SIZE[1],) * 2
        else:
            assert told == []
        assert kept > 0 or stop == 1


def test_several_stops_add_up(tmp_path):
    runs = Runs(model("excitation"), tmp_path)
    _, reads = runs.run("whole")
    stops = 0
    while True:
        try:
            _, again = runs.run("a", reads=30, resume=True)
        except StoppedError:
            stops += 1
        else:
            break
    assert stops > 2
    assert again < reads
    assert runs.content("a") == runs.content("whole")


@pytest.mark.parametrize("stop", ["first", "second", "third", "result"])
def test_maps_that_were_kept_are_made_again(tmp_path, monkeypatch, stop):
    """In whichever of three passes: statistics of finished ones stay, to the same bytes."""
    runs = Runs(model(kept=True, times=3), tmp_path)
    straight, straight_reads = runs.run("whole")
    assert len(straight.passes) == 3
    tiles = [one.tiles for one in straight.passes]
    finished = [*np.cumsum(tiles)]
    stop = {"first": tiles[0] - 1, "second": finished[0] + 3, "third": finished[1] + 3, "result": finished[2]}[stop]
    monkeypatch.setattr(PartialsLane, "start", failing_after(stop, StoppedError))
    runs.stopped("a", straight_reads - straight.tiles if stop == finished[2] else 1 << 30)
    record = FoundFile(tmp_path / "a.tif").read()
    monkeypatch.undo()
    assert len(record["passes"]["statistics"]) == sum(
        2 for upto in finished if upto <= stop
    )  # a mean and a variance each
    assert (record["passes"]["begun"] is not None) == (stop < finished[0])  # the others make maps
    begun: list[Merged] = []
    values = Merged.values
    monkeypatch.setattr(Merged, "values", lambda merged: begun.append(merged) or values(merged))
    runs.run("a", resume=True)
    assert len(begun) == sum(stop < upto for upto in finished)
    assert runs.content("a") == runs.content("whole")


def one_map(name: str) -> SimpleNamespace:
    return SimpleNamespace(output=name)


def passes(*chains: tuple[str, str], result: str = "") -> SimpleNamespace:
    """A model whose pass i finds ``i``, reads and writes the maps that are named."""
    levels = [
        SimpleNamespace(
            statistics=[SimpleNamespace(inputs=(str(number),))],
            model=SimpleNamespace(reads=[*map(one_map, reads)], writes=[*map(one_map, writes)]),
        )
        for number, (reads, writes) in enumerate(chains)
    ]
    return SimpleNamespace(levels=levels, reads=[*map(one_map, result)])


@pytest.mark.parametrize(
    ("model", "known", "runs"),
    [
        (passes(("", ""), ("", "")), "", (True, True)),
        (passes(("", ""), ("", "")), "0", (False, True)),
        (passes(("", ""), ("", "")), "01", (False, False)),
        (passes(("", "a"), ("a", "b"), ("b", "c"), result="c"), "012", (True, True, True)),
        (passes(("", "a"), ("a", "b"), ("b", ""), result=""), "012", (False, False, False)),
        (passes(("", "a"), ("a", "b"), ("b", ""), result="a"), "012", (True, False, False)),
        (passes(("", "a"), ("a", ""), ("", "c"), result="c"), "01", (False, False, True)),
        (passes(("", "a"), ("a", "b"), ("", "c"), ("b", ""), result="c"), "012", (True, True, True, True)),
    ],
)
def test_passes_whose_maps_nobody_needs_are_left_out(model, known, runs):
    assert passes_to_run(model, known) == runs


KILLED = """
import os, signal, sys
from pathlib import Path
import exactile.passes.found as keeping
from tests.passes.test_resume_passes import Runs, StoppingSource, model
keeping.KEEP_SECONDS = keeping.REST_SHARE = 0
StoppingSource.stop = lambda source: os.kill(os.getpid(), signal.SIGKILL)
Runs(model(), Path(sys.argv[1])).run("a", reads=int(sys.argv[2]), resume=True)
"""


def test_a_killed_process_is_gone_on_with(tmp_path):
    """Twice: in the first level and in the second."""
    runs = Runs(model(), tmp_path)
    straight, reads = runs.run("whole")
    first = straight.passes[0].tiles
    for stop in (first - 2, 10):
        killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(stop)], cwd=ROOT,
                                capture_output=True, check=False)  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert ".a.tif.statistics" in runs.left("a")
    with pytest.raises(OutputExistsError, match=r"\.a\.tif\.statistics.*--resume.*--overwrite"):
        runs.run("a")
    summary, again = runs.run("a", resume=True)
    assert again < reads - first
    assert len(summary.passes) == 1
    assert runs.content("a") == runs.content("whole")
    assert runs.left("a") == []


def test_whole_image_normalisation_is_taken_over(tmp_path, monkeypatch):
    """Of a network without passes of its own, stopped before the first box of its result."""
    image = np.random.default_rng(2).integers(0, 256, (150, 130, 3), dtype=np.uint8)
    session = session_of("unet_d2", normalization=Normalization(statistics=ImageStatistics(kind="zscore")))
    options = {"plan": "tile", "tile": (64, 64)}
    session.segment(ArraySource(image), TiffSink(tmp_path / "whole.tif", tile=32), **options)
    measuring = StoppingSource(image)
    session.measure(measuring)
    for name, reads, left in (("a", measuring.count_of_reads, True), ("b", measuring.count_of_reads - 1, False)):
        sink = TiffSink(tmp_path / f"{name}.tif", tile=32, resumable=True)
        with pytest.raises(StoppedError):
            session.segment(StoppingSource(image, reads), sink, **options)
        assert sink.keeps == left
        assert (tmp_path / f".{name}.tif.statistics").exists() == left
    monkeypatch.setattr(Session, "measure", lambda *_, **__: pytest.fail("measured again"))
    again = TiffSink(tmp_path / "a.tif", tile=32, resumable=True)
    session.segment(ArraySource(image), again, resume=True, **options)
    assert not again.keeps
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "whole.tif"]


def test_a_damaged_file_counts_as_none_and_is_told(tmp_path):
    runs = Runs(model(), tmp_path)
    _, reads = runs.run("whole")
    runs.stopped("a", 15)
    left = tmp_path / ".a.tif.statistics"
    left.write_bytes(left.read_bytes()[:-9])
    summary, again = runs.run("a", resume=True)
    assert again == reads
    assert summary.notes == (".a.tif.statistics is damaged: statistics of the image are found again",)
    assert runs.content("a") == runs.content("whole")
    assert runs.left("a") == []


def test_another_run_is_refused_and_overwrite_starts_anew(tmp_path):
    runs = Runs(model(), tmp_path)
    _, reads = runs.run("whole")
    runs.stopped("a", 15)
    left = (tmp_path / ".a.tif.statistics").read_bytes()
    with pytest.raises(ResumeError, match="image"):
        replace(runs, image=runs.image[:-8]).run("a", resume=True)
    with pytest.raises(ResumeError, match=r"model\.graph"):
        Runs(model("excitation"), tmp_path).run("a", resume=True)
    with pytest.raises(ResumeError, match=r"arguments\.note"):
        runs.run("a", resume=True, arguments={"note": "b"})
    with pytest.raises(OutputExistsError, match="--resume"):
        runs.run("a")
    assert (tmp_path / ".a.tif.statistics").read_bytes() == left
    assert runs.left("a") == [".a.tif.statistics"]
    _, again = runs.run("a", overwrite=True)
    assert again == reads
    assert runs.content("a") == runs.content("whole")
    assert runs.left("a") == []


def test_a_run_that_starts_anew_is_the_one_that_is_gone_on_with(tmp_path):
    """What an earlier run had done of its result is gone then, too."""
    runs, other = Runs(model(), tmp_path), Runs(model("excitation"), tmp_path)
    straight, reads = runs.run("whole")
    runs.stopped("a", reads - 1)
    assert runs.left("a") == [".a.tif.journal", ".a.tif.part"] or ".a.tif.journal" in runs.left("a")
    other.stopped("a", 15, overwrite=True)
    assert runs.left("a") == [".a.tif.statistics"]
    with pytest.raises(ResumeError, match=r"model\.graph"):
        runs.run("a", resume=True)
    other.run("whole_other")
    other.run("a", resume=True)
    assert content(tmp_path / "a.tif") == content(tmp_path / "whole_other.tif")
    assert straight.tiles > 1


def test_one_run_at_a_time_finds_statistics(tmp_path):
    """Another one is refused while passes run, however it is asked for."""
    runs = Runs(model(), tmp_path)
    refused: list[str] = []

    class Meanwhile(StoppingSource):
        def read(self, box, out) -> None:
            if self.count_of_reads == 5:
                for options in ({}, {"resume": True}, {"overwrite": True}):
                    with pytest.raises(SinkError, match="another run is writing it"):
                        runs.run("a", **options)
                    refused.append(str(options))
            super().read(box, out)

    sink = TiffSink(tmp_path / "a.tif", tile=32, resumable=True)
    Session(runs.found, memory_bytes=8 << 30).segment(
        Meanwhile(runs.image), sink, plan="tile", tile=tile_of(runs.found)
    )
    assert len(refused) == 3
    runs.run("whole")
    assert runs.content("a") == runs.content("whole")


def test_an_early_end_before_anything_is_found_leaves_nothing(tmp_path):
    runs = Runs(model(), tmp_path)
    runs.stopped("a", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_that_was_killed_before_anything_was_found_stands_in_nobodys_way(tmp_path, resume):
    """It leaves an empty journal, by which it held the place."""
    runs = Runs(model(), tmp_path)
    (tmp_path / ".a.tif.journal").touch()
    (tmp_path / ".a.tif.statistics.new").write_bytes(b"half of it")
    summary, _ = runs.run("a", resume=resume)
    assert summary.notes == ()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_the_tiles_of_passes_are_taken_over(tmp_path, monkeypatch):
    """Whatever would be chosen by now; where they do not fit any more the error says so."""
    runs = Runs(model(), tmp_path)
    runs.run("whole")
    runs.stopped("a", 15)
    monkeypatch.setattr(Passes, "_by_wish", lambda *_: pytest.fail("planned anew"))
    with monkeypatch.context() as scarce:

        def choose(*_):
            raise BudgetError("too little memory")

        scarce.setattr(PassPlanner, "choose", choose)
        with pytest.raises(BudgetError, match=r"too little memory\. These are the tiles of the run.*--overwrite"):
            runs.run("a", resume=True)
    runs.run("a", resume=True)
    assert runs.content("a") == runs.content("whole")


def test_a_disk_that_is_full_ends_the_run_and_keeps_what_was_kept_before(tmp_path, monkeypatch):
    runs = Runs(model(), tmp_path)
    runs.run("whole")
    runs.stopped("a", 15)
    left = (tmp_path / ".a.tif.statistics").read_bytes()
    monkeypatch.setattr(keeping, "KEEP_SECONDS", 0)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(SinkError, match="the disk is full"):
            runs.run("a", resume=True)
    assert (tmp_path / ".a.tif.statistics").read_bytes() == left
    runs.run("a", resume=True)
    assert runs.content("a") == runs.content("whole")
    assert runs.left("a") == []


def test_sinks_that_keep_nothing_are_left_alone(tmp_path):
    runs = Runs(model(), tmp_path)
    with pytest.raises(StoppedError):
        Session(runs.found, memory_bytes=8 << 30).segment(
            StoppingSource(runs.image, 15), TiffSink(tmp_path / "a.tif"), plan="tile", tile=tile_of(runs.found)
        )
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_that_resume_goes_on(tmp_path, monkeypatch):
    """For one image and for many; the record of an image that is to be resumed stays."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", image_of(SIZE)[..., 0], tile=(32, 32))
    (tmp_path / "net.onnx").write_bytes(chain("instance_norm"))
    tile = f"{small_tile(model(), SIZE)[0]}x{SIZE[1]}"
    options = ["run", str(tmp_path / "net.onnx"), "--tile", tile, "--no-verify", "--scratch-size", "0", "--json"]
    one = [*options, str(tmp_path / "in" / "a.tif"), "-o", str(tmp_path / "out.tif")]
    many = [*options, str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    straight = CliRunner().invoke(app, [*one, "--overwrite"])
    assert straight.exit_code == 0, straight.output
    assert len(json.loads(straight.stdout)["passes"]) == LEVELS
    expected = (tmp_path / "out.tif").read_bytes()
    for arguments, target in ((one, tmp_path / "out.tif"), (many, tmp_path / "out" / "a.tif")):
        target.unlink(missing_ok=True)
        tiles = json.loads(straight.stdout)["passes"][0]["tiles"] + 1
        with monkeypatch.context() as broken:
            broken.setattr(PartialsLane, "start", failing_after(tiles, MemoryError))
            stopped = CliRunner().invoke(app, arguments)
        assert stopped.exit_code != 0
        assert target.with_name(f".{target.name}.statistics").exists()
        refused = CliRunner().invoke(app, arguments)
        assert "--resume" in refused.stderr
        gone_on = CliRunner().invoke(app, [*arguments, "--resume"])
        assert gone_on.exit_code == 0, gone_on.output
        told = json.loads(gone_on.stdout)
        assert len((told[0] if isinstance(told, list) else told)["passes"]) == 1
        assert target.read_bytes() == expected
        if arguments is one:
            assert f"what is done of {target} is kept: resume it with --resume" in stopped.stderr
        else:
            assert target.with_name("b.tif").read_bytes() == expected
    assert not list(tmp_path.rglob(".*"))


def test_what_was_begun_is_recorded_to_the_last_bit():
    state = np.array([np.pi, -0.0, np.inf, np.nan, 5e-324])
    values = np.array([[0.1, -0.0, np.nan], [np.inf, 1e-45, 3]], np.float32)
    found = Found(statistics={"mean": values}, begun=BegunLevel(zones=3, state=state), tiles=((8, 16),))
    assert found.with_tile(0, (4, 4)).tiles == ((4, 4),)
    from exactile.plan.tiles import TilePlan
    from exactile.runs.run_record import found_record, take_over

    plan = TilePlan.of(model().contract.geometry, SIZE, "model", tile_of(model()))
    record = json.loads(json.dumps(found_record({"image": 1}, plan, None, found)))
    again = take_over(record, {"image": 1})
    assert again.found.begun is not None
    assert again.found.begun.zones == 3
    assert again.found.begun.state.tobytes() == state.tobytes()
    assert again.found.tiles == ((8, 16),)
    assert again.found.statistics["mean"].shape == values.shape
    assert again.found.statistics["mean"].tobytes() == values.tobytes()
    with pytest.raises(ResumeError, match="image"):
        take_over(record, {"image": 2})


def test_npy_results_are_not_gone_on_with(tmp_path):
    from exactile.sinks.npy import NpySink

    with pytest.raises(OptionError, match=r"\.tif"):
        Session(model(), memory_bytes=8 << 30).segment(
            ArraySource(image_of(SIZE)), NpySink(tmp_path / "a.npy"), resume=True
        )
