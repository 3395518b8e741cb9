"""``exactile run --cluster``: one image on the workers of a Dask cluster."""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

import exactile
from exactile.cli.protection import protect_run
from exactile.cli.run_request import RunRequest
from exactile.distributed.segmentation import ClusterSummary, Segmentation, segment
from exactile.errors import OptionError
from exactile.memory import default_budget_bytes
from exactile.plan.budget import format_bytes
from exactile.request.meaning import nan_object, warn_of_nan
from exactile.request.progress import MeasuringBar
from exactile.sinks.zarr import zarr_target
from exactile.sources.address import shown_name

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local"
CORES_OF_A_WORKER = 2
CONNECT_S = 10.0
DASK_LOGS = ("distributed", "tornado", "asyncio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What was said of it. ``address``: ``local``, or that of a scheduler."""

    address: str
    workers: int | None
    block: int


def run_on_cluster(
    request: RunRequest, images: list[str], target: Path, cluster: Cluster, *, progress: bool, as_json: bool
) -> None:
    """One image into the Zarr ``target``. Raises OptionError for what clusters do not do."""
    image = _checked(request, images, target, cluster)
    protect_run(request, [image], [target])
    request.load()
    source = request.open_source(image)
    try:
        model = request.deployed(source)
    finally:
        source.close()
    with ExitStack() as stack:
        client = stack.enter_context(_client(cluster, request))
        bar = stack.enter_context(MeasuringBar(Path(image).name, enabled=progress))
        sinks = request.sinks
        run = segment(
            client,
            model,
            image,
            target,
            block=cluster.block,
            compression=sinks["compression"] or "zstd",
            pyramid=sinks["pyramid"],
            label=sinks["label"],
            overwrite=sinks["overwrite"],
            source_options=request.sources,
            plan=request.plan,
            tile=request.tile,
            border=request.border,
            memory_bytes=request.memory_bytes,
            threads=request.threads,
            engine=request.engine,
            nodata=request.nodata,
            nodata_label=request.nodata_label,
            resume=request.resume,
            progress=bar.update,
        )
        summary = _waited(run, target)
    _print(summary, request.model.path, image, target, as_json=as_json)
    warn_of_nan(summary.nan, model.contract.result, image)


def _waited(run: Segmentation, target: Path) -> ClusterSummary:
    try:
        return run.result()
    except BaseException:
        for name in DASK_LOGS:  # of connections that are closed now; what went wrong is told by the error
            logging.getLogger(name).setLevel(logging.CRITICAL)
        run.cancel()
        if run.keeps:
            typer.echo(f"what is done of {target} is kept: resume it with --resume", err=True)
        raise


def _checked(request: RunRequest, images: list[str], target: Path, cluster: Cluster) -> str:
    """The image. Raises OptionError."""
    if len(images) != 1 or not zarr_target(target):
        raise OptionError("--cluster runs one image, into a .zarr folder; other outputs and many images run without it")
    if cluster.workers is not None and cluster.address != LOCAL:
        raise OptionError("--workers are those of --cluster local; another cluster has its own")
    unknown = {
        "--skip-background": request.skip_background is not None,
        "--tolerance": request.tolerance is not None,
        "--statistics": request.statistics is not None,
        "--trial": request.trial,
        "--lanes": request.lanes is not None,
        "--preview or --overlay": any(request.pictures.values()),
        "--trace": request.trace is not None,
        "--device": request.device not in {"auto", "cpu"},
        "--device-memory": request.device_memory_bytes is not None,
        "--scratch": request.scratch is not None or request.scratch_bytes is not None,
        "--on-corrupt fill": request.sources["on_corrupt"] != "fail",
        "--no-keep": not request.sinks["resumable"],
    }
    if given := [option for option, is_given in unknown.items() if is_given]:
        raise OptionError(f"--cluster does not take {', '.join(given)}. What to do: leave it out, or run without it")
    return images[0]


@contextmanager
def _client(cluster: Cluster, request: RunRequest) -> Iterator[Client]:
    """Raises OptionError where Dask is missing, or no scheduler answers."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise OptionError(f"--cluster needs Dask ({error}). What to do: pip install 'exactile[cluster]'") from error
    if cluster.address != LOCAL:
        try:
            client = Client(cluster.address, timeout=CONNECT_S)
        except (OSError, ValueError) as error:
            raise OptionError(
                f"--cluster {cluster.address}: no scheduler answers there ({error}). What to do: start one (dask "
                "scheduler), and give the address that it prints"
            ) from error
        typer.echo(f"cluster: {client.dashboard_link}", err=True)
        with client:
            yield client
        return
    cores = len(os.sched_getaffinity(0))
    workers = cluster.workers or max(1, cores // CORES_OF_A_WORKER)
    if request.threads is None:
        request.threads = max(1, cores // workers)
    if request.memory_bytes is None:
        request.memory_bytes = default_budget_bytes() // workers
    with ExitStack() as stack:
        with _interrupts_ignored():
            # Memory is bounded by plans; a worker that Dask ends for what it holds would only begin anew.
            local = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=0,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )
            )
        yield stack.enter_context(Client(local))


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that are started within do not see Ctrl-C: it is this one that ends them, when their blocks have."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _print(summary: ClusterSummary, model: Path, image: str, target: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_plain(summary, model, image, target), indent=2))
        return
    height, width = summary.image
    rows, columns = summary.block
    table = Table.grid(padding=(0, 2))
    wanted = summary.wanted_pixels
    for name, value in (
        ("result", str(target)),
        ("image", f"{height} x {width} pixels"),
        ("plan", f"{summary.plan} {summary.shape[0]} x {summary.shape[1]}"),
        ("blocks", f"{summary.blocks} of {rows} x {columns}" + (f", {summary.again} run again" * bool(summary.again))),
        ("workers", ", ".join(f"{name}: {count}" for name, count in summary.workers.items())),
        ("computed", f"{summary.computed_pixels / wanted:.3f} of the pixels"),
        ("time", f"{summary.seconds:.1f} s, {summary.megapixels_per_second:.2f} Mpx/s"),
        ("memory", f"{format_bytes(summary.peak_memory_bytes)} at most in a worker"),
    ):
        table.add_row(name, value)
    Console(highlight=False, soft_wrap=True).print(table)


def _plain(summary: ClusterSummary, model: Path, image: str, target: Path) -> dict[str, Any]:
    """As of other runs, as far as it is known; sizes are [height, width]."""
    return {
        "model": str(model),
        "image": shown_name(image),
        "output": str(target),
        "plan": summary.plan,
        "tile": list(summary.shape),
        "image_size": list(summary.image),
        "result_shape": list(summary.result),
        "blocks": summary.blocks,
        "block": list(summary.block),
        "blocks_again": summary.again,
        "workers": dict(summary.workers),
        "nan": nan_object(summary.nan),
        "wanted_pixels": summary.wanted_pixels,
        "computed_pixels": summary.computed_pixels,
        "kept_pixels": summary.kept_pixels,
        "computed_over_wanted": round(summary.computed_pixels / summary.wanted_pixels, 4),
        "seconds": {"total": round(summary.seconds, 4)},
        "megapixels_per_second": round(summary.megapixels_per_second, 4),
        "peak_memory_bytes": summary.peak_memory_bytes,
        "exactile": exactile.__version__,
        "python": platform.python_version(),
    }
