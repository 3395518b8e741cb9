"""Images on Dask workers that have a GPU each: an emulated one in every process, with the result of the CPU."""

from __future__ import annotations

import os
import sys
import threading
import time

import distributed
import numpy as np
import pytest
import tifffile
import zarr

from exactile.distributed import segment, worker
from exactile.distributed.job import Batch
from exactile.distributed.tasks import Tasks
from exactile.errors import DeviceError, OptionError
from tests.emulation.driver import load
from tests.gpu.test_gpu_passes import SIZE, TILE, TOLERANCE, one_pass
from tests.gpu.test_gpu_passes import deployed as deployed_in_passes
from tests.gpu.test_gpu_passes import picture as uneven
from tests.support import dask_cluster
from tests.support.command import within
from tests.support.emulated_gpu import SCRATCH_BYTES, deployed, emulated, picture, segmented, with_engines
from tests.support.nets import onnx_file
from tests.support.tensorrt_stand_in import EmulatedGpu, TensorRTStandIn

pytestmark = dask_cluster.QUIET
BINDING = "cuda.bindings"
OPTIONS = {"block": 64, "device": "cuda:0", "memory_bytes": 4 << 30}


def put_a_gpu_in() -> None:
    """In a worker: an emulated GPU, and TensorRT on it; what it keeps open of an earlier image is closed before."""
    if worker._WORKER._opened is not None:
        worker._WORKER._opened.close()
        worker._WORKER._opened = None
    emulation = load()
    emulation.reset()
    sys.modules["tensorrt"] = TensorRTStandIn(EmulatedGpu(emulation), scratch_bytes=SCRATCH_BYTES).module
    os.environ["EXACTILE_CUDA_BINDING"] = BINDING


def computed_and_wrong() -> tuple[int, list[str]]:
    """How many times the GPU of a worker computed, and what it found wrong."""
    emulation = load()
    computed = sum(operation.kind == "compute" for operation in emulation.trace())
    return computed, [str(violation) for violation in emulation.violations()]


@pytest.fixture(scope="module")
def client():
    with dask_cluster.cluster_of(2) as found:
        found.run(put_a_gpu_in)
        yield found


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr("exactile.sinks.tiled.sink.TILE_PX_LABELS", 64)


@pytest.mark.parametrize(
    ("plan", "engines", "size"),
    [("tile", {"tiles": [(64, 96)]}, (150, 170)), ("strip", {"strips": [(16, 160)]}, (150, 160))],
)
def test_each_worker_computes_blocks_on_its_gpu(client, plan, engines, size, monkeypatch, tmp_path):
    model = with_engines(deployed("unet_d2"), tmp_path, **engines)
    image = picture(model, *size)
    expected = segmented(model, image, plan="whole")
    tifffile.imwrite(tmp_path / "image.tif", image, tile=(64, 64), photometric="rgb")
    client.run(put_a_gpu_in)
    with emulated(monkeypatch, BINDING):
        run = segment(client, model, tmp_path / "image.tif", tmp_path / "labels.zarr", plan=plan, **OPTIONS)
        summary = run.result(120)
    labels = zarr.open_array(tmp_path / "labels.zarr" / "labels" / "segmentation" / "0", mode="r")[:]
    assert np.array_equal(labels, expected)
    assert summary.plan == plan
    assert {tuple(machine["devices"]) for machine in summary.machines.values()} == {("Emulated GPU (8, 6)",)}
    found = client.run(computed_and_wrong)
    assert sum(count for count, _ in found.values()) > 0
    assert all(wrong == [] for _, wrong in found.values())


def test_statistics_are_found_on_gpus_too(client, monkeypatch, tmp_path):
    """Passes over the image in blocks: the scores of one pass to rounding."""
    image = uneven()
    model = with_engines(deployed_in_passes("instance_norm"), tmp_path, tiles=[TILE])
    tifffile.imwrite(tmp_path / "image.tif", image[..., 0], tile=(16, 16))
    client.run(put_a_gpu_in)
    with emulated(monkeypatch, BINDING):
        run = segment(client, model, tmp_path / "image.tif", tmp_path / "scores.zarr", plan="tile", **OPTIONS)
        run.result(120)
    scores = zarr.open_array(tmp_path / "scores.zarr" / "0", mode="r")[:]
    expected = one_pass("instance_norm", image)
    assert scores.shape == expected.shape
    assert scores.shape[1:] == SIZE
    assert np.abs(scores - expected).max() <= TOLERANCE * np.abs(expected).max()
    found = client.run(computed_and_wrong)
    assert sum(count for count, _ in found.values()) > 0
    assert all(wrong == [] for _, wrong in found.values())


def test_a_client_without_a_gpu_says_that_it_plans(client, monkeypatch, tmp_path):
    model = with_engines(deployed("unet_d2"), tmp_path, tiles=[(64, 96)])
    tifffile.imwrite(tmp_path / "image.tif", picture(model, 150, 170), tile=(64, 64), photometric="rgb")
    with emulated(monkeypatch, BINDING) as (emulation, _):
        emulation.reset(devices=0)
        run = segment(client, model, tmp_path / "image.tif", tmp_path / "labels.zarr", **OPTIONS)
        with pytest.raises(DeviceError, match="The client plans for its workers, and needs a GPU of their kind"):
            run.result(60)
        with pytest.raises(OptionError, match="--device auto could be different on each worker"):
            segment(client, model, tmp_path / "image.tif", tmp_path / "labels.zarr", device="auto")


def where(_batch: Batch, _shared: None, number: int) -> tuple[int, str]:
    time.sleep(0.05)
    return number, distributed.get_worker().address


def test_workers_that_have_the_resource_get_all_pieces():
    """Where one of two has a GPU by Dask's resources, the other gets nothing; where none says so, both do."""
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, memory_limit=0, dashboard_address="127.0.0.1:0",
            silence_logs=50, resources={"GPU": 1},
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        (with_gpu,) = client.scheduler_info()["workers"]
        plain = cluster.new_spec
        cluster.new_spec = {**plain, "options": {**plain["options"], "resources": None}}
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)

        def workers_of(resource: str | None) -> set[str]:
            tasks = Tasks(client, Batch(key=f"resource-{resource}"), threading.Event(), resource=resource)
            return {worker for _, (_, worker) in tasks.run(where, None, ((number,) for number in range(20)))}

        assert workers_of("GPU") == {with_gpu}
        assert len(workers_of(None)) == 2
        assert len(workers_of("TPU")) == 2


def test_a_local_cluster_leaves_gpus_to_one_process(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("image.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    network = onnx_file(tmp_path, "unet_d2", weights="integer")
    done = within("run", network, "image.tif", "-o", "labels.zarr", "--cluster", "local", "--device", "cuda:0")
    assert done.returncode == 2
    assert "--cluster local has workers on the CPU" in done.stderr
