"""Runs that end early and go on: the same bytes as a run that does not end early, and no work done twice."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile

from exactile.errors import ChannelError, OptionError, OutputExistsError, ResumeError
from exactile.session import Session
from exactile.sinks.npy import NpySink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.passes.test_reductions import exported
from tests.runs.test_exactness import image_for
from tests.support.command import exactile as command
from tests.support.nets import onnx_bytes, onnx_file

MEMORY = 8 << 30


class StoppedError(Exception):
    """Somebody pulled the plug."""


class StoppingSink(TiffSink):
    """Fails after ``writes`` boxes."""

    writes = 0

    def write(self, box, block) -> None:
        if self.writes == 0:
            raise StoppedError
        self.writes -= 1
        super().write(box, block)


def session_of(name: str, **options) -> Session:
    network = prepare_network(onnx.load_from_string(onnx_bytes(name)), name="net")
    return Session(deploy(network, image_dtype="uint8", **options), memory_bytes=MEMORY)


def stopped(session: Session, image, path: Path, writes: int, **options) -> None:
    sink = StoppingSink(path, tile=32, resumable=True)
    sink.writes = writes
    with pytest.raises(StoppedError):
        session.segment(ArraySource(image), sink, **options)


PLANS = [
    ("unet_d2", {"plan": "tile", "tile": (64, 64)}, (190, 210)),
    ("unet_d2", {"plan": "strip", "tile": (16, 64)}, (230, 150)),
    ("unet_d2", {"plan": "strip", "tile": (8, 240)}, (230, 150)),
    ("valid", {"plan": "strip", "tile": (16, 80)}, (300, 150)),
    ("super_resolution", {"plan": "strip", "tile": (8, 40)}, (150, 90)),
    ("unet_bilinear_d2", {"plan": "strip", "tile": (8, 160)}, (300, 150)),
]


@pytest.mark.parametrize("border", ["model", "reflect"])
@pytest.mark.parametrize(("name", "options", "size"), PLANS)
def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path, name, options, size, border):
    image = image_for(name, *size)
    output = "raw" if name == "super_resolution" else "labels"
    session = session_of(name, output=output)
    counting = StoppingSink(tmp_path / "whole.tif", tile=32)
    counting.writes = 10_000
    session.segment(ArraySource(image), counting, border=border, **options)
    expected, most = (tmp_path / "whole.tif").read_bytes(), 10_000 - counting.writes
    for writes in (1, most // 3, most // 2, most - 1):
        stopped(session, image, tmp_path / "a.tif", writes, border=border, **options)
        sink = TiffSink(tmp_path / "a.tif", tile=32, resumable=True)
        done = []
        summary = session.segment(ArraySource(image), sink, border=border, resume=True, progress=done.append, **options)
        assert (tmp_path / "a.tif").read_bytes() == expected, writes
        assert summary.kept_pixels > 0
        assert sum(done) == np.prod(summary.result[-2:])
        (tmp_path / "a.tif").unlink()


def test_strips_that_are_done_are_not_computed_again(tmp_path):
    image, session = image_for("unet_d2", 1200, 90), session_of("unet_d2")
    options = {"plan": "strip", "tile": (16, 96)}
    stopped(session, image, tmp_path / "a.tif", 60, **options)
    summary = session.segment(
        ArraySource(image), TiffSink(tmp_path / "a.tif", tile=32, resumable=True), resume=True, **options
    )
    assert summary.kept_pixels > 0.7 * 1200 * 90
    assert summary.computed_pixels < 0.45 * 1200 * 96


def test_whole_image_statistics_are_taken_over(tmp_path, monkeypatch):
    image = image_for("unet_d2", 190, 210)
    statistics = Normalization(statistics=exactile_statistics())
    session = session_of("unet_d2", normalization=statistics)
    session.segment(ArraySource(image), TiffSink(tmp_path / "whole.tif", tile=32), tile=(64, 64))
    stopped(session, image, tmp_path / "a.tif", 5, tile=(64, 64))
    monkeypatch.setattr(Session, "measure", lambda *_: pytest.fail("measured again"))
    session.segment(
        ArraySource(image), TiffSink(tmp_path / "a.tif", tile=32, resumable=True), tile=(64, 64), resume=True
    )
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def exactile_statistics():
    from exactile.contract import ImageStatistics

    return ImageStatistics(kind="zscore")


def test_another_model_image_or_option_is_refused_with_what_differs(tmp_path):
    image, session = image_for("unet_d2", 190, 210), session_of("unet_d2")
    stopped(session, image, tmp_path / "a.tif", 5, tile=(64, 64))
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    sink = lambda: TiffSink(tmp_path / "a.tif", tile=32, resumable=True)  # noqa: E731
    with pytest.raises(ResumeError, match="image"):
        session.segment(ArraySource(image[:-8]), sink(), tile=(64, 64), resume=True)
    with pytest.raises(ResumeError, match=r"model\.graph"):
        session_of("unet_d2", normalization=Normalization(scale=(7.0,))).segment(
            ArraySource(image), sink(), tile=(64, 64), resume=True
        )
    with pytest.raises(ResumeError, match=r"asked\.border: was model, is reflect"):
        session.segment(ArraySource(image), sink(), tile=(64, 64), border="reflect", resume=True)
    with pytest.raises(ResumeError, match=r"arguments\.note"):
        session.segment(ArraySource(image), sink(), tile=(64, 64), resume=True, arguments={"note": "b"})
    with pytest.raises(ChannelError):
        session.segment(ArraySource(image[:, :, :1]), sink(), tile=(64, 64))
    with pytest.raises(OutputExistsError, match="--resume"):
        session.segment(ArraySource(image), sink(), tile=(64, 64))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == left


def test_resume_with_nothing_to_resume_is_a_run(tmp_path):
    image, session = image_for("unet_d2", 90, 80), session_of("unet_d2")
    summary = session.segment(ArraySource(image), TiffSink(tmp_path / "a.tif", resumable=True), resume=True)
    assert summary.kept_pixels == 0
    assert tifffile.imread(tmp_path / "a.tif").shape == (90, 80)
    with pytest.raises(OptionError, match=r"\.tif"):
        session.segment(ArraySource(image), NpySink(tmp_path / "a.npy"), resume=True)


OFTEN = """
import exactile.passes.found as found
import exactile.sinks.resume.safekeeping as safekeeping
found.KEEP_SECONDS, found.REST_SHARE = 0.05, 1
safekeeping.COMMIT_SECONDS = 0.01
from exactile.cli.main import run
run()
"""
"""The command, which keeps what is found and done more often than users' runs do, which take longer."""


def content(path: Path) -> dict[str, bytes]:
    """All bytes of a file, or of a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


def killed_and_resumed(
    tmp_path: Path,
    plan: list[str],
    suffix: str,
    kills: int,
    seed: int,
    *,
    model: Path | None = None,
    size: tuple[int, int] = (1500, 1100),
) -> int:
    """Runs of the command line are killed at random moments, and resumed; how many had kept something.

    With a ``model`` that takes statistics of the whole image, most of them while these are found.
    """
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", image, tile=(256, 256), compression="zlib", photometric="rgb")
    net = model or onnx_file(tmp_path, "unet_d2")
    run = ["run", net, tmp_path / "image.tif", *plan, "--scale", "255", "--no-verify", "--json"]
    begin = time.monotonic()
    whole = command(*run, "-o", tmp_path / f"whole{suffix}")
    seconds = time.monotonic() - begin
    assert whole.returncode == 0, whole.stderr
    told = json.loads(whole.stdout)
    moments, target, gone_on = random.Random(seed), tmp_path / f"a{suffix}", 0
    for _ in range(kills):
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", OFTEN, *map(str, run), "-o", str(target), "--resume"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if model is not None and told["passes"]:
            found = tmp_path / f".a{suffix}.statistics"
            while process.poll() is None and not found.exists():
                time.sleep(0.01)
            time.sleep(moments.uniform(0, told["seconds"]["measure"]))
        else:
            time.sleep(moments.uniform(0.4, 1.0) * seconds)
        process.kill()
        process.wait()
        if not target.exists():
            again = command(*run, "-o", target, "--resume")
            assert again.returncode == 0, again.stderr
            resumed = json.loads(again.stdout)
            gone_on += bool(
                resumed["kept_pixels"]
                or len(resumed["passes"]) < len(told["passes"])
                or any(one["kept_tiles"] for one in resumed["passes"])
            )
            assert not list(tmp_path.glob(".a.*"))
        assert content(target) == content(tmp_path / f"whole{suffix}")
    return gone_on


TILES, STRIPS = ["--tile", "128"], ["--plan", "strip", "--tile", "32x600"]


@pytest.mark.parametrize(("plan", "suffix"), [(TILES, ".ome.tif"), (STRIPS, ".tif"), (TILES, ".zarr")])
def test_killed_processes_are_gone_on_with(tmp_path, plan, suffix):
    killed_and_resumed(tmp_path, plan, suffix, kills=2, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("plan", [TILES, STRIPS])
@pytest.mark.parametrize("suffix", [".ome.tif", ".zarr"])
def test_twenty_kills_of_twenty(tmp_path, plan, suffix):
    killed_and_resumed(tmp_path, plan, suffix, kills=20, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("plan", [["--tile", "128"], ["--plan", "strip", "--memory", "240MiB"]])
def test_twenty_kills_in_passes_for_statistics(tmp_path, plan):
    """In whichever pass, with maps that are kept between them, and where all of them begin at the image."""
    model = tmp_path / "normed.onnx"
    model.write_bytes(exported("nnunet_plain", "torchscript"))
    assert killed_and_resumed(tmp_path, plan, ".tif", kills=20, seed=3, model=model, size=(2100, 1900)) >= 10
