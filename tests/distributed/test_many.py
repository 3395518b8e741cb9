"""Many images on a cluster: the results of one machine, failures told, complete ones left."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from exactile.distributed import ClusterSummary, segment_many
from exactile.errors import OptionError, OutputExistsError, ResumeError
from exactile.request.records import pending_path, record_path
from exactile.session import Session
from exactile.sinks.resume.journal import journal_path
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.open import open_source
from exactile_converters.convert import convert
from tests.passes.test_passes import deployed, image_of, one_pass
from tests.runs.test_blocks import files_of, model_of
from tests.runs.test_exactness import image_for
from tests.support import dask_cluster
from tests.support.command import within
from tests.support.global_nets import chain
from tests.support.nets import onnx_bytes, onnx_file
from tests.support.oracle import whole_pass

pytestmark = dask_cluster.QUIET
SIZES = [(90, 70), (260, 230), (64, 33), (140, 200)]
OPTIONS = {"threads": 1, "memory_bytes": 4 << 30, "block": 128}


@pytest.fixture(scope="module")
def client():
    with dask_cluster.cluster_of(2) as found:
        yield found


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "in"
    folder.mkdir()
    for number, size in enumerate(SIZES):
        image = image_for("unet_d2", *size, largest=7)
        tifffile.imwrite(folder / f"{number}.tif", image, tile=(64, 64), photometric="rgb")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    convert(onnx_file(folder, "unet_d2", weights="classes"), folder / "net.bundle")
    return folder / "net.bundle"


def expected(image: Path) -> np.ndarray:
    geometry = model_of("unet_d2", "labels").contract.geometry
    return whole_pass(onnx_bytes("unet_d2", weights="classes"), tifffile.imread(image), geometry).argmax(0)


def pairs(images: Path, folder: Path, suffix: str) -> list[tuple[Path, Path]]:
    folder.mkdir(exist_ok=True)
    return [(images / f"{number}.tif", folder / f"{number}{suffix}") for number in range(len(SIZES))]


def labels_of(target: Path) -> np.ndarray:
    if target.suffix == ".npy":
        return np.load(target)
    if target.suffix == ".zarr":
        return zarr.open_array(target / "labels" / "segmentation" / "0", mode="r")[:]
    return tifffile.imread(target)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".npy", ".zarr"])
def test_each_result_is_that_of_one_pass(client, images, tmp_path, suffix):
    """Large ones, into Zarr, in blocks."""
    wanted = pairs(images, tmp_path / "out", suffix)
    found = list(segment_many(client, model_of("unet_d2", "labels"), wanted, name="unet", **OPTIONS))
    assert {Path(one.image).name for one in found} == {"0.tif", "1.tif", "2.tif", "3.tif"}
    assert not [one.error for one in found if one.error]
    in_blocks = [one for one in found if isinstance(one.summary, ClusterSummary)]
    assert {one.target.name for one in in_blocks} == ({"1.zarr", "3.zarr"} if suffix == ".zarr" else set())
    for image, target in wanted:
        assert np.array_equal(labels_of(target), expected(image))
        record = json.loads(record_path(target).read_text())
        assert record["summary"]["image"] == str(image)
        assert record["summary"]["model"] == "unet"
        assert all("onnxruntime" in machine for machine in record["workers"].values())
        assert not pending_path(target).exists()


def test_what_fails_is_told_and_the_others_go_on(client, images, tmp_path):
    (tmp_path / "broken.tif").write_bytes((images / "0.tif").read_bytes()[:3000])
    tifffile.imwrite(tmp_path / "grey.tif", np.zeros((60, 60), np.uint8), tile=(64, 64))
    wanted = pairs(images, tmp_path, ".tif")
    (tmp_path / "1.tif").write_bytes(b"somebody's")
    wanted[2:2] = [(tmp_path / f"{name}.tif", tmp_path / f"{name}-labels.tif") for name in ("broken", "grey", "none")]
    found = {Path(one.image).name: one for one in segment_many(client, model_of("unet_d2", "labels"), wanted,
                                                               **OPTIONS)}  # fmt: skip
    failed = {name for name, one in found.items() if one.error is not None}
    assert failed == {"broken.tif", "grey.tif", "none.tif", "1.tif"}
    assert isinstance(found["1.tif"].error, OutputExistsError)
    assert (tmp_path / "1.tif").read_bytes() == b"somebody's"
    for number in (0, 2, 3):
        assert np.array_equal(labels_of(tmp_path / f"{number}.tif"), expected(images / f"{number}.tif"))
    assert not list(tmp_path.glob("*labels.tif*"))
    assert not list(tmp_path.glob(".*pending"))


def test_what_is_complete_is_left(client, images, tmp_path):
    wanted = pairs(images, tmp_path, ".zarr")
    model = model_of("unet_d2", "labels")
    list(segment_many(client, model, wanted[:2], **OPTIONS))
    before = [record_path(target).stat().st_mtime_ns for _, target in wanted[:2]]
    found = list(segment_many(client, model, wanted, resume=True, **OPTIONS))
    assert [one.summary is None for one in sorted(found, key=lambda one: one.image)] == [True, True, False, False]
    assert [record_path(target).stat().st_mtime_ns for _, target in wanted[:2]] == before
    other = list(segment_many(client, model, wanted, resume=True, plan="tile", **OPTIONS))
    assert all(isinstance(one.error, ResumeError) for one in other)
    assert "another run made it: asked.plan: was auto, is tile" in str(other[0].error)


def test_a_run_that_is_stopped_is_resumed(client, images, tmp_path):
    """In Python, by leaving and cancelling."""
    wanted = [(images / f"{n % 4}.tif", tmp_path / f"{n}.zarr") for n in range(16)]
    model = model_of("unet_d2", "labels")
    run = segment_many(client, model, wanted, **OPTIONS)
    first = next(iter(run))
    assert first.error is None
    run.cancel()
    complete = [target for _, target in wanted if target.exists()]
    assert 1 <= len(complete) < 16
    found = list(segment_many(client, model, wanted, resume=True, **OPTIONS))
    assert not [one.error for one in found if one.error]
    for number, (_, target) in enumerate(wanted):
        assert np.array_equal(labels_of(target), expected(images / f"{number % 4}.tif"))


def test_networks_with_statistics_of_the_image(client, tmp_path):
    """A worker takes one pass where that fits; the record is that of what was asked, so that it is left later."""
    network, wanted = chain("instance_norm"), []
    for number, size in enumerate([(60, 40), (90, 70)]):
        tifffile.imwrite(tmp_path / f"{number}.tif", image_of(size)[..., 0], tile=(64, 64))
        wanted.append((tmp_path / f"{number}.tif", tmp_path / f"{number}.npy"))
    model = deployed(network, None)
    assert not [one.error for one in segment_many(client, model, wanted, **OPTIONS) if one.error]
    for image, target in wanted:
        expected = one_pass(network, tifffile.imread(image)[..., None])
        assert np.abs(np.load(target) - expected).max() <= 1e-5 * np.abs(expected).max()
    again = list(segment_many(client, model, wanted, resume=True, **OPTIONS))
    assert all(one.summary is None and one.error is None for one in again), [one.error for one in again]


def test_images_of_workers_that_are_killed_are_resumed(tmp_path):
    """By the worker that takes them over; outcomes may be asked for again."""
    image = image_for("unet_d2", 900, 800, largest=7)
    tifffile.imwrite(tmp_path / "image.tif", image, tile=(64, 64), photometric="rgb")
    wanted = [(tmp_path / "image.tif", tmp_path / f"{number}.tif") for number in range(6)]
    killed: list[int] = []
    with dask_cluster.cluster_of(2) as client:
        run = segment_many(client, model_of("unet_d2", "labels"), wanted, **OPTIONS, plan="tile", tile=(80, 80))
        while len(killed) < 2:
            begun = [journal_path(target) for _, target in wanted if journal_path(target).exists()]
            if any(path.stat().st_size > 2000 for path in begun):
                pids = [pid for pid in client.run(os.getpid, on_error="ignore").values() if pid not in killed]
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
            time.sleep(0.2)
        found = list(run)
    assert not [one.error for one in found if one.error]
    assert len(found) == 6
    assert list(run) == []
    for _, target in wanted:
        assert np.array_equal(labels_of(target), expected(tmp_path / "image.tif"))


def test_slow_images_are_not_run_twice(client, tmp_path, monkeypatch):
    """A large one among small ones takes longer than they do; two workers must not write one file."""
    monkeypatch.setattr("exactile.distributed.tasks.SLOW_S", 0.1)
    sizes = [(64, 64)] * 6 + [(1500, 1400)]
    for number, size in enumerate(sizes):
        tifffile.imwrite(
            tmp_path / f"{number}.tif", image_for("unet_d2", *size, largest=7), tile=(64, 64), photometric="rgb"
        )
    wanted = [(tmp_path / f"{number}.tif", tmp_path / f"{number}-labels.tif") for number in range(len(sizes))]
    found = list(segment_many(client, model_of("unet_d2", "labels"), wanted, **OPTIONS, plan="tile", tile=(80, 80)))
    assert not [one.error for one in found if one.error]
    record = json.loads(record_path(wanted[-1][1]).read_text())
    assert record["summary"]["model"] == model_of("unet_d2", "labels").contract.model_name
    assert np.array_equal(labels_of(wanted[-1][1]), expected(wanted[-1][0]))


def test_unfinished_runs_are_not_lost(client, images, tmp_path):
    """Without resume or overwrite they are refused, and stay."""
    wanted = pairs(images, tmp_path, ".tif")[1:2]
    journal = journal_path(wanted[0][1])
    stopped = stopped_run(wanted[0])
    (one,) = segment_many(client, model_of("unet_d2", "labels"), wanted, **OPTIONS)
    assert isinstance(one.error, OutputExistsError)
    assert journal.read_bytes() == stopped
    (one,) = segment_many(client, model_of("unet_d2", "labels"), wanted, **OPTIONS, overwrite=True)
    assert one.error is None
    assert np.array_equal(labels_of(wanted[0][1]), expected(wanted[0][0]))
    assert not journal.exists()


def stopped_run(pair: tuple[Path, Path]) -> bytes:
    """The journal of a run of another plan that was stopped after half of its pixels."""
    source, done = open_source(pair[0]), 0

    def stop(pixels: int) -> None:
        nonlocal done
        done += pixels
        if done > source.height * source.width // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Session(model_of("unet_d2", "labels"), threads=1).segment(
            source, TiffSink(pair[1], tile=16, resumable=True), plan="tile", tile=(80, 80), progress=stop
        )
    source.close()
    return journal_path(pair[1]).read_bytes()


def test_one_pass_is_refused(client, images, tmp_path):
    with pytest.raises(OptionError, match="which cannot be shared"):
        segment_many(client, model_of("unet_d2", "labels"), pairs(images, tmp_path, ".tif"), plan="whole")


def test_the_command(client, images, bundle, tmp_path):
    words = ["run", bundle, images, "-o", tmp_path / "out", "--cluster", client.scheduler.address, "--format"]
    done = within(*words, ".ome.tif", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == 4
    alone = within("run", bundle, images, "-o", tmp_path / "alone", "--format", ".ome.tif")
    assert alone.returncode == 0, alone.stderr
    for number in range(4):
        assert (tmp_path / "out" / f"{number}.ome.tif").read_bytes() == (
            tmp_path / "alone" / f"{number}.ome.tif"
        ).read_bytes()
    again = within(*words, ".ome.tif", "--resume")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("was complete") == 4
    tifffile.imwrite(tmp_path / "grey.tif", np.zeros((60, 60), np.uint8), tile=(64, 64))
    failed = within("run", bundle, tmp_path / "grey.tif", images / "0.tif", "-o", tmp_path / "some", *words[5:-1])
    assert failed.returncode == 2
    assert "1 of 2 images failed" in failed.stderr
    assert (tmp_path / "some" / "0.tif").exists()


def test_a_tiff_is_made_of_the_blocks(client, images, bundle, tmp_path):
    """With the levels, classes and size of pixels of a run on one machine."""
    words = ["run", bundle, images / "1.tif", "--cluster", client.scheduler.address, "--block", 64, "-o"]
    done = within(*words, tmp_path / "labels.ome.tif", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == str(tmp_path / "labels.ome.tif")
    assert within("run", bundle, images / "1.tif", "-o", tmp_path / "alone.ome.tif").returncode == 0
    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as found, tifffile.TiffFile(tmp_path / "alone.ome.tif") as one:
        assert np.array_equal(found.asarray(), one.asarray())
        assert len(found.series[0].levels) == len(one.series[0].levels)
        metadata = [re.sub("urn:uuid:[0-9a-f-]+|labels|alone", "", file.ome_metadata) for file in (found, one)]
        assert metadata[0] == metadata[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.ome.tif", "labels.ome.tif"]
    (tmp_path / ".other.tif.zarr").mkdir()
    refused = within(*words, tmp_path / "other.tif")
    assert refused.returncode == 2
    assert "was not copied to" in refused.stderr


def test_maps_become_a_tiff_too(client, images, tmp_path):
    words = ["run", onnx_file(tmp_path, "unet_d2", weights="integer"), images / "1.tif", "--output", "raw"]
    done = within(*words, "-o", tmp_path / "maps.tif", "--cluster", client.scheduler.address, "--block", 64)
    assert done.returncode == 0, done.stderr
    assert within(*words, "-o", tmp_path / "alone.tif").returncode == 0
    assert np.array_equal(tifffile.imread(tmp_path / "maps.tif"), tifffile.imread(tmp_path / "alone.tif"))


def test_results_in_blocks_are_those_of_one_machine(client, images, bundle, tmp_path):
    done = within("run", bundle, images, "-o", tmp_path / "out", "--format", "zarr", "--cluster",
                  client.scheduler.address, "--block", 128)  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = within("run", bundle, images, "-o", tmp_path / "alone", "--format", "zarr")
    assert alone.returncode == 0, alone.stderr
    for number in range(4):
        assert files_of(tmp_path / "out" / f"{number}.zarr") == files_of(tmp_path / "alone" / f"{number}.zarr")
