"""Images on a local Dask cluster: the files of a run on one machine, whatever happens to workers."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile
import zarr

from exactile.contract import ImageStatistics
from exactile.distributed import segment
from exactile.errors import CancelledError, ClusterError, OutputExistsError, ResumeError
from exactile.geometry import Box
from exactile.session import Session
from exactile.sinks.resume.journal import Journal, journal_path
from exactile.sinks.zarr.sink import ZarrSink
from exactile.sources.open import open_source
from exactile_converters.convert import convert
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.runs.test_blocks import files_of, model_of
from tests.runs.test_exactness import image_for
from tests.support import whole_nets
from tests.support.command import exactile, within
from tests.support.nets import onnx_bytes, onnx_file
from tests.support.oracle import whole_pass

distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SIZE = (260, 230)
OPTIONS = {"block": 64, "threads": 1, "memory_bytes": 4 << 30}


@cache
def place(folder: Path) -> Path:
    image = image_for("unet_d2", *SIZE, largest=7)
    tifffile.imwrite(folder / "image.tif", image, tile=(64, 64), photometric="rgb")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return place(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


def alone(folder: Path, plan: str) -> dict[str, bytes]:
    """The files of a run on this machine alone."""
    target = folder / f"alone-{plan}.zarr"
    if not target.exists():
        source = open_source(folder / "image.tif")
        Session(model_of("unet_d2", "labels"), threads=1).segment(source, ZarrSink(target, tile=64), plan=plan)
        source.close()
    return files_of(target)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several levels above those that blocks hold."""
    monkeypatch.setattr("exactile.sinks.tiled.sink.TILE_PX_LABELS", 64)


@pytest.mark.parametrize("plan", ["tile", "strip"])
def test_the_files_are_those_of_one_machine(client, folder, tmp_path, plan):
    told: list[tuple[int, int]] = []
    run = segment(
        client, model_of("unet_d2", "labels"), folder / "image.tif", tmp_path / "labels.zarr", plan=plan, **OPTIONS,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    summary = run.result(120)
    assert run.done
    assert files_of(tmp_path / "labels.zarr") == alone(folder, plan)
    labels = zarr.open_array(tmp_path / "labels.zarr" / "labels" / "segmentation" / "0", mode="r")[:]
    geometry = model_of("unet_d2", "labels").contract.geometry
    scores = whole_pass(onnx_bytes("unet_d2", weights="classes"), tifffile.imread(folder / "image.tif"), geometry)
    assert np.array_equal(labels, scores.argmax(0))
    assert len(np.unique(labels)) > 1
    assert summary.plan == plan
    assert summary.blocks == (5 if plan == "strip" else 20)
    assert sum(summary.workers.values()) == summary.blocks
    assert told[0] == (0, SIZE[0] * SIZE[1])
    assert told[-1] == (SIZE[0] * SIZE[1], SIZE[0] * SIZE[1])
    assert [path.name for path in tmp_path.iterdir()] == ["labels.zarr"]


def test_tiles_that_are_asked_for_stay(client, folder, tmp_path):
    """They straddle blocks, and are computed for each."""
    run = segment(
        client, model_of("unet_d2", "labels"), folder / "image.tif", tmp_path / "labels.zarr", plan="tile",
        tile=(120, 100), **OPTIONS,
    )  # fmt: skip
    assert run.result(120).shape == (120, 100)
    assert files_of(tmp_path / "labels.zarr") == alone(folder, "tile")


def test_several_images_share_a_cluster(client, folder, tmp_path):
    runs = [
        segment(
            client, model_of("unet_d2", "labels"), folder / "image.tif", tmp_path / f"{n}.zarr", plan="tile", **OPTIONS
        )
        for n in range(3)
    ]
    for number, run in enumerate(runs):
        run.result(120)
        assert files_of(tmp_path / f"{number}.zarr") == alone(folder, "tile")


def test_workers_that_are_killed_are_replaced(folder, tmp_path):
    """Three times one of three workers is killed while blocks run; no block is lost or written with other bytes."""
    killed: list[int] = []

    def kill(done: int, _total: int) -> None:
        if done and len(killed) < 3:
            pids = [pid for pid in client.run(os.getpid, on_error="ignore").values() if pid not in killed]
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])

    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        run = segment(
            client, model_of("unet_d2", "labels"), folder / "image.tif", tmp_path / "labels.zarr", plan="tile",
            progress=kill, **OPTIONS,
        )  # fmt: skip
        summary = run.result(240)
    assert len(set(killed)) == 3
    assert sum(summary.workers.values()) == 20
    assert files_of(tmp_path / "labels.zarr") == alone(folder, "tile")


def test_a_cancelled_run_is_resumed(client, folder, tmp_path):
    some = threading.Event()
    model, target = model_of("unet_d2", "labels"), tmp_path / "labels.zarr"

    def progress(done: int, _total: int) -> None:
        if done:
            some.set()

    run = segment(client, model, folder / "image.tif", target, plan="tile", progress=progress, **OPTIONS)
    assert some.wait(120)
    run.cancel()
    with pytest.raises(CancelledError):
        run.result()
    assert run.keeps
    assert not target.exists()
    with pytest.raises(OutputExistsError, match="an unfinished run"):
        segment(client, model, folder / "image.tif", target, plan="tile", **OPTIONS).result(120)
    with pytest.raises(ResumeError, match=r"asked\.plan: was tile, is strip"):
        segment(client, model, folder / "image.tif", target, plan="strip", resume=True, **OPTIONS).result(120)
    summary = segment(client, model, folder / "image.tif", target, plan="tile", resume=True, **OPTIONS).result(120)
    assert summary.kept_pixels
    assert sum(summary.workers.values()) < 20
    assert files_of(target) == alone(folder, "tile")


def test_a_worker_that_sees_another_image_does_not_compute(client, folder, tmp_path, monkeypatch):
    """The image changes between the client's look at it and the workers'."""
    path = tmp_path / "image.tif"
    path.write_bytes((folder / "image.tif").read_bytes())
    from exactile.distributed import segmentation

    class Slow(segmentation.Tasks):
        def wait_for_workers(self) -> None:
            super().wait_for_workers()
            os.utime(path, (1, 1))

    monkeypatch.setattr(segmentation, "Tasks", Slow)
    run = segment(client, model_of("unet_d2", "labels"), path, tmp_path / "labels.zarr", plan="tile", **OPTIONS)
    with pytest.raises(ClusterError, match=r"the image on worker .* is not the client's: mtime_ns: was \d+, is 1"):
        run.result(120)
    assert not (tmp_path / "labels.zarr").exists()


def test_a_block_that_cannot_be_written_is_tried_elsewhere_and_then_told(client, folder, tmp_path):
    """What is there already, where chunks should go, fails in every worker."""
    target = tmp_path / "labels.zarr"

    def in_the_way(done: int, _total: int) -> None:
        if not done:
            (part,) = tmp_path.glob(".labels.zarr*part")
            (part / "labels" / "segmentation" / "0" / "c").write_text("in the way")

    run = segment(
        client, model_of("unet_d2", "labels"), folder / "image.tif", target, plan="tile", progress=in_the_way, **OPTIONS
    )
    with pytest.raises(ClusterError, match=r"block \d+ failed on worker .*: cannot write .*Not a directory"):
        run.result(120)
    assert not target.exists()


def fill_the_disk() -> None:
    """In a worker: files beyond a few bytes cannot be written, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, resource.RLIM_INFINITY))


def test_blocks_of_a_worker_whose_disk_is_full_are_written_by_others(folder, tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        full = next(iter(client.scheduler_info()["workers"]))
        client.run(fill_the_disk, workers=[full])
        run = segment(
            client,
            model_of("unet_d2", "labels"),
            folder / "image.tif",
            tmp_path / "labels.zarr",
            plan="tile",
            **OPTIONS,
        )
        summary = run.result(120)
    assert summary.again >= 1
    assert files_of(tmp_path / "labels.zarr") == alone(folder, "tile")


@pytest.mark.slow
def test_a_large_image_has_the_files_of_one_machine(client, tmp_path, monkeypatch):
    """8192 x 8192 pixels in blocks of the default size."""
    monkeypatch.undo()  # chunks of their usual size
    image = np.random.default_rng(2).integers(0, 8, (8192, 8192, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", image, tile=(512, 512), photometric="rgb", compression="zlib")
    model = model_of("unet_d2", "labels")
    for plan in ("tile", "strip"):
        run = segment(
            client, model, tmp_path / "image.tif", tmp_path / f"{plan}.zarr", plan=plan, threads=1, memory_bytes=4 << 30
        )
        assert run.result(900).blocks == (4 if plan == "tile" else 2)
        with closing(open_source(tmp_path / "image.tif")) as source:
            Session(model).segment(source, ZarrSink(tmp_path / f"alone-{plan}.zarr"), plan=plan)
        assert files_of(tmp_path / f"{plan}.zarr") == files_of(tmp_path / f"alone-{plan}.zarr")


def test_the_command(folder, tmp_path):
    bundle = tmp_path / "net.bundle"
    convert(onnx_file(tmp_path, "unet_d2", weights="classes"), bundle)
    done = within(
        "run", bundle, folder / "image.tif", "-o", tmp_path / "labels.zarr", "--cluster", "local", "--workers", 2,
        "--block", 64, "--plan", "tile", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["blocks"], told["block"]) == (20, [64, 64])
    assert len(told["workers"]) == 2
    alone = within("run", bundle, folder / "image.tif", "-o", tmp_path / "alone.zarr")
    assert alone.returncode == 0, alone.stderr
    assert files_of(tmp_path / "labels.zarr") == files_of(tmp_path / "alone.zarr")


def test_ctrl_c_keeps_what_is_done(tmp_path):
    """The whole process group is interrupted, as by a terminal; the second run has the rest to do."""
    image = image_for("unet_d2", 1700, 1600, largest=7)
    tifffile.imwrite(tmp_path / "image.tif", image, tile=(64, 64), photometric="rgb")
    bundle = tmp_path / "net.bundle"
    convert(onnx_file(tmp_path, "unet_d2", weights="classes"), bundle)
    target = tmp_path / "labels.zarr"
    words = ["run", bundle, tmp_path / "image.tif", "-o", target, "--plan", "tile", "--block", 512]
    words += ["--cluster", "local", "--workers", 2, "--tile", 80]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # under nohup and cron it is ignored
    run = subprocess.Popen(
        [sys.executable, "-m", "exactile", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed,  # noqa: PLW1509
    )
    end = time.monotonic() + 120
    while len(adopted(target)) < 1 and time.monotonic() < end and run.poll() is None:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    _, told = run.communicate(timeout=120)
    assert run.returncode == 130, told
    assert "what is done of" in told
    assert "internal error" not in told
    assert not target.exists()
    done = exactile(*words, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept_pixels"] > 0
    assert exactile("run", bundle, tmp_path / "image.tif", "-o", tmp_path / "alone.zarr").returncode == 0
    assert files_of(target) == files_of(tmp_path / "alone.zarr")


def adopted(target: Path) -> list[Box]:
    """Blocks that the journal of an unfinished run claims."""
    path = journal_path(target)
    if not path.exists():
        return []
    journal = Journal.__new__(Journal)
    journal._output, journal.path, journal._end_bytes = target, path, 0
    journal._descriptor = os.open(path, os.O_RDONLY)
    try:
        return [record for record, _ in journal.read() if isinstance(record, Box)]
    finally:
        os.close(journal._descriptor)


def test_samples_are_normalised_by_the_whole_image(client, folder, tmp_path):
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="net")
    zscore = Normalization(statistics=ImageStatistics(kind="zscore"))
    model = deploy(network, image_dtype="uint8", output="labels", normalization=zscore)
    source = open_source(folder / "image.tif")
    Session(model, threads=1).segment(source, ZarrSink(tmp_path / "alone.zarr", tile=64), plan="tile")
    source.close()
    segment(client, model, folder / "image.tif", tmp_path / "labels.zarr", plan="tile", **OPTIONS).result(120)
    assert files_of(tmp_path / "labels.zarr") == files_of(tmp_path / "alone.zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "labels.zarr", "--cluster", "tcp://a:1", "--workers", "2"], "--workers are those of --cluster local"),
        (["-o", "labels.zarr", "--cluster", "local", "--preview", "--trial"],
         "--cluster does not take --trial, --preview or --overlay"),
        (["-o", "labels.zarr", "--cluster", "nowhere:1"], "no scheduler answers there"),
        (["-o", "labels.zarr", "--cluster", "local", "--workers", 1, "--plan", "whole"], "which cannot be shared"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_with_a_cluster(folder, tmp_path, options, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = within("run", onnx_file(tmp_path, "unet_d2", weights="classes"), folder / "image.tif", *options)
    assert done.returncode == 2
    assert message in done.stderr


def test_networks_that_cannot_be_tiled_are_refused(client, folder, tmp_path):
    (tmp_path / "net.onnx").write_bytes(whole_nets.looping())
    done = within(
        "run", tmp_path / "net.onnx", folder / "image.tif", "-o", tmp_path / "labels.zarr", "--cluster",
        client.scheduler.address,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be tiled" in done.stderr


def test_workers_with_another_engine_do_not_compute(client, folder, tmp_path, monkeypatch):
    """As a client of another version would find; mixed, they do."""
    monkeypatch.setattr(
        Session, "processor_identity", property(lambda self: {**self._processor.identity, "onnxruntime": "1.0"})
    )
    arguments = client, model_of("unet_d2", "labels"), folder / "image.tif", tmp_path / "labels.zarr"
    with pytest.raises(ClusterError, match=r"the engine on worker .* onnxruntime: was 1\.0, is .* or pass --mixed"):
        segment(*arguments, plan="tile", **OPTIONS).result(120)
    summary = segment(*arguments, plan="tile", mixed=True, **OPTIONS).result(120)
    assert files_of(tmp_path / "labels.zarr") == alone(folder, "tile")
    assert {machine["onnxruntime"] for machine in summary.machines.values()} == {onnxruntime.__version__}
