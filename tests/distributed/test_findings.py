"""Statistics of the whole image, found by workers: the files of a run on one machine, byte for byte."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tifffile
import zarr

from exactile.contract import ImageStatistics
from exactile.distributed import segment
from exactile.errors import CancelledError, ClusterError
from exactile.image_statistics.measure import block_rows, measure, take_blocks
from exactile.image_statistics.tallies import Measuring
from exactile.plan.part import zones_of
from exactile.plan.tiles import TilePlan
from exactile.session import Session
from exactile.sinks.files.found_file import FoundFile
from exactile.sinks.zarr.sink import ZarrSink
from exactile.sources.array import ArraySource
from exactile.sources.nodata import ByValue
from exactile.sources.open import open_source
from exactile_converters.deploy import Normalization, deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.passes.test_passes import deployed, image_of, one_pass, small_tile
from tests.runs.test_blocks import files_of, model_of
from tests.support import dask_cluster
from tests.support.global_nets import chain
from tests.support.nets import onnx_bytes

pytestmark = dask_cluster.QUIET
SIZE = (150, 131)
OPTIONS = {"block": 64, "threads": 1, "memory_bytes": 4 << 30, "plan": "tile"}
WANTED = [
    ImageStatistics(kind=kind, per_channel=per_channel)
    for kind in ("zscore", "percentile")
    for per_channel in (True, False)
]


@pytest.fixture(scope="module")
def client():
    with dask_cluster.cluster_of(2) as found:
        yield found


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Many of them."""
    monkeypatch.setattr("exactile.sinks.tiled.sink.TILE_PX_CHANNELS", 16)
    monkeypatch.setattr("exactile.sinks.tiled.sink.TILE_PX_LABELS", 16)
    monkeypatch.setattr("exactile.distributed.findings.PIECE_PX", 1)
    monkeypatch.setattr("exactile.distributed.findings.READ_BYTES", 1)


def samples(dtype: str, size: tuple[int, int] = (300, 200)) -> np.ndarray:
    found = np.random.default_rng(3).normal(100, 30, (*size, 3))
    return found.astype(dtype) if dtype == "float32" else np.clip(found, 0, 255).astype(dtype)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("nodata", [None, 100])
def test_parts_add_up_to_the_same_bits(wanted, dtype, nodata, monkeypatch):
    """However the rows are divided; without nodata, too."""
    monkeypatch.setattr("exactile.image_statistics.measure.BLOCK_BYTES", 20_000)
    image = samples(dtype)
    image[40:90] = 100
    source, rule = ArraySource(image), None if nodata is None else ByValue(nodata)
    expected = measure(source, wanted, nodata=nodata)
    for step in (1, 4, 1000):
        measuring, rows = Measuring(source.dtype, 3, wanted), block_rows(source)
        assert rows > 4
        for tally in measuring.tallies():
            for first in range(0, rows, step):
                part = tally.apart()
                take_blocks(source, part, range(first, min(first + step, rows)), rule=rule)
                tally.merge(part.parts)
        found = measuring.normalizers()
        assert np.array_equal(found.offset, expected.offset)
        assert np.array_equal(found.scale, expected.scale)


@pytest.mark.parametrize(("dtype", "kind"), [("uint8", "percentile"), ("uint16", "zscore"), ("float32", "percentile"),
                                              ("float32", "zscore")])  # fmt: skip
def test_samples_are_normalised_by_the_whole_image(client, tmp_path, dtype, kind, monkeypatch):
    monkeypatch.setattr("exactile.sinks.tiled.sink.TILE_PX_CHANNELS", 256)
    size = (1100, 700)  # several rows of blocks
    tifffile.imwrite(tmp_path / "image.tif", samples(dtype, size), tile=(64, 64), photometric="rgb")
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="net")
    normalization = Normalization(statistics=ImageStatistics(kind=kind))
    model = deploy(network, image_dtype=dtype, output="raw", normalization=normalization)
    source = open_source(tmp_path / "image.tif")
    assert block_rows(source) > 2
    Session(model, threads=1).segment(source, ZarrSink(tmp_path / "alone.zarr", tile=256), plan="tile")
    source.close()
    told: list[tuple[int, int]] = []
    run = segment(
        client, model, tmp_path / "image.tif", tmp_path / "found.zarr", measuring=lambda *one: told.append(one),
        **{**OPTIONS, "block": 512},
    )  # fmt: skip
    run.result(120)
    assert files_of(tmp_path / "found.zarr") == files_of(tmp_path / "alone.zarr")
    assert told[-1][0] == told[-1][1] > 0


@pytest.mark.parametrize("plan", ["tile", "strip"])
@pytest.mark.parametrize("block", ["excitation", "instance_norm"])
def test_passes_give_what_they_give_on_one_machine(client, tmp_path, block, plan):
    """Beside it: one pass of plain ONNX Runtime."""
    network, image = chain(block), image_of(SIZE)
    tifffile.imwrite(tmp_path / "image.tif", image[..., 0], tile=(64, 64))
    model = replace(deployed(network, SIZE), keeping=None, whole=None)
    tile = small_tile(model, SIZE) if plan == "tile" else None
    source = open_source(tmp_path / "image.tif")
    Session(model, threads=1).segment(source, ZarrSink(tmp_path / "alone.zarr", tile=16), plan=plan, tile=tile)
    source.close()
    run = segment(
        client, model, tmp_path / "image.tif", tmp_path / "found.zarr", **{**OPTIONS, "plan": plan, "tile": tile}
    )
    summary = run.result(240)
    assert files_of(tmp_path / "found.zarr") == files_of(tmp_path / "alone.zarr")
    assert len(summary.record["statistics"]) >= 2
    expected = one_pass(network, image)
    scores = zarr.open_array(tmp_path / "found.zarr" / "0", mode="r")[:]
    assert np.abs(scores.reshape(expected.shape) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_workers_that_are_killed_in_a_pass_are_replaced(tmp_path):
    network, image = chain("instance_norm"), image_of(SIZE)
    tifffile.imwrite(tmp_path / "image.tif", image[..., 0], tile=(64, 64))
    model = replace(deployed(network, SIZE), keeping=None, whole=None)
    tile = small_tile(model, SIZE)
    source = open_source(tmp_path / "image.tif")
    Session(model, threads=1).segment(source, ZarrSink(tmp_path / "alone.zarr", tile=16), plan="tile", tile=tile)
    source.close()
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done > total * (len(killed) + 1) / 5 and len(killed) < 3:
            pids = [pid for pid in client.run(os.getpid, on_error="ignore").values() if pid not in killed]
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])

    with dask_cluster.cluster_of(3) as client:
        run = segment(
            client, model, tmp_path / "image.tif", tmp_path / "found.zarr", tile=tile, measuring=kill, **OPTIONS
        )
        run.result(240)
    assert len(killed) == 3
    assert files_of(tmp_path / "found.zarr") == files_of(tmp_path / "alone.zarr")


def test_a_run_that_ends_in_a_pass_is_resumed_there(client, tmp_path, monkeypatch):
    """What was found is kept, and not found again."""
    monkeypatch.setattr("exactile.passes.found.KEEP_SECONDS", 0.0)
    monkeypatch.setattr("exactile.passes.found.REST_SHARE", 0)
    network, image = chain("instance_norm"), image_of(SIZE)
    tifffile.imwrite(tmp_path / "image.tif", image[..., 0], tile=(64, 64))
    model = replace(deployed(network, SIZE), keeping=None, whole=None)
    wish = {**OPTIONS, "tile": small_tile(model, SIZE)}
    target = tmp_path / "found.zarr"

    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > 0.7 * total:
            raise StoppedError

    run = segment(client, model, tmp_path / "image.tif", target, measuring=stop, **wish)
    with pytest.raises(StoppedError):
        run.result(240)
    assert run.keeps
    found = FoundFile(target).read()
    assert found is not None
    assert found["passes"]["statistics"]
    assert found["passes"]["begun"]["zones"] > 0
    told: list[tuple[int, int]] = []
    segment(
        client, model, tmp_path / "image.tif", target, resume=True, measuring=lambda *one: told.append(one), **wish
    ).result(240)
    assert 0 < told[-1][0] < 0.6 * told[-1][1]
    source = open_source(tmp_path / "image.tif")
    Session(model, threads=1).segment(
        source, ZarrSink(tmp_path / "alone.zarr", tile=16), plan="tile", tile=wish["tile"]
    )
    source.close()
    assert files_of(target) == files_of(tmp_path / "alone.zarr")
    assert not FoundFile(target).exists


def test_statistics_that_are_given_are_taken(client, tmp_path):
    network, image = chain("excitation"), image_of(SIZE)
    tifffile.imwrite(tmp_path / "image.tif", image[..., 0], tile=(64, 64))
    model = deployed(network, SIZE)
    statistics = Session(model).measure_statistics([ArraySource(image_of((80, 70)))])
    source = open_source(tmp_path / "image.tif")
    Session(model, threads=1).segment(
        source, ZarrSink(tmp_path / "alone.zarr", tile=16), plan="tile", statistics=statistics
    )
    source.close()
    told: list[tuple[int, int]] = []
    segment(
        client, model, tmp_path / "image.tif", tmp_path / "found.zarr", statistics=statistics,
        measuring=lambda *one: told.append(one), **OPTIONS,
    ).result(120)  # fmt: skip
    assert not told
    assert files_of(tmp_path / "found.zarr") == files_of(tmp_path / "alone.zarr")


def test_samples_that_are_no_numbers_end_the_run(client, tmp_path):
    image = samples("float32", SIZE)
    image[70, 20] = np.nan
    tifffile.imwrite(tmp_path / "image.tif", image, tile=(64, 64), photometric="rgb")
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="net")
    normalization = Normalization(statistics=ImageStatistics(kind="zscore"))
    model = deploy(network, image_dtype="float32", output="raw", normalization=normalization)
    run = segment(client, model, tmp_path / "image.tif", tmp_path / "found.zarr", **OPTIONS)
    with pytest.raises(ClusterError, match=r"reading the image failed on worker .* samples that are not finite"):
        run.result(120)
    assert [path.name for path in tmp_path.iterdir()] == ["image.tif"]


def test_a_run_is_cancelled_while_the_image_is_read(client, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", samples("uint8", (2000, 2000)), tile=(64, 64), photometric="rgb")
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d2")), name="net")
    normalization = Normalization(statistics=ImageStatistics(kind="zscore"))
    model = deploy(network, image_dtype="uint8", output="labels", normalization=normalization)
    run = segment(client, model, tmp_path / "image.tif", tmp_path / "found.zarr", **OPTIONS)
    run.cancel()
    with pytest.raises(CancelledError):
        run.result(60)
    assert not (tmp_path / "found.zarr").exists()


@pytest.mark.parametrize("count", [1, 2, 5, 12, 10**9])
def test_pieces_of_a_pass_are_all_zones_in_order(count):
    """Pieces of rows, and rows together."""
    plan = TilePlan.of(model_of("unet_d1", "labels").contract.geometry, SIZE, "model", (48, 48))
    pieces, steps = list(zones_of(plan, count)), list(plan)
    assert [box for piece in pieces for box in piece.boxes(plan)] == [step.zor for step in steps]
    at = 0
    for piece in pieces:
        assert piece.first(plan) == at
        assert list(piece.of(plan)) == steps[at : at + len(piece)]
        at += len(piece)
    assert (len(pieces) == 1) == (count == 10**9)
