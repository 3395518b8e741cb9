"""``exactile run --cluster``: run images on the workers of a Dask cluster."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from exactile.cli.protection import protect_run
from exactile.cli.run_many import prepare_folder, result_path, tell_failures
from exactile.cli.run_request import RunRequest
from exactile.cli.summary import print_line
from exactile.contract import DeployedModel
from exactile.distributed.many import ImageOutcome, segment_many
from exactile.distributed.segmentation import Segmentation, segment
from exactile.distributed.summary import ClusterSummary
from exactile.errors import OptionError, OutputExistsError, SinkError
from exactile.export import copy_pixels
from exactile.machine.memory import default_budget_bytes
from exactile.passes.fixed import read_statistics
from exactile.plan.budget import format_bytes
from exactile.request.damage import warn_of_damage
from exactile.request.meaning import warn_of_nan
from exactile.request.progress import Bar, ManyBars
from exactile.runs.batch import Outcome
from exactile.runs.summary import Summary
from exactile.sinks.open import check_target, open_sink
from exactile.sinks.zarr.sink import labels_folder, zarr_target
from exactile.sources.open import open_source
from exactile.sources.protocol import Source

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local"
CORES_OF_A_WORKER = 2
CONNECT_S = 10.0
DASK_LOGS = ("distributed", "tornado", "asyncio")
MODELS_OF_ONE_SIZE = 4
"""Models of one image size that are kept for further images of that size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The options for clusters. ``address``: ``local``, or that of a scheduler."""

    address: str
    workers: int | None
    block: int
    mixed: bool


def run_on_cluster(
    request: RunRequest, image: str, target: Path, cluster: Cluster, *, progress: bool, as_json: bool
) -> None:
    """Run one image, into a Zarr, from which another file is made. Raises OptionError for what clusters
    do not support.
    """
    _check(request, cluster)
    into = target if zarr_target(target) else _beside(target)
    protect_run(request, [image], [target])
    check_target(target, overwrite=bool(request.sinks["overwrite"]))
    request.load()
    source = request.open_source(image)
    try:
        model = request.deployed(source)
    finally:
        source.close()
    options = _options(request, cluster)
    if into != target:  # its levels and compression are made at the end
        options |= {"compression": None, "pyramid": False}
    with _client(cluster, request) as client, Bar(Path(image).name, enabled=progress) as bar:
        run = segment(
            client, model, image, into, progress=bar.reach, measuring=bar.measure, **options, **_workers(request)
        )  # fmt: skip
        summary = _waited(run, target)
    if into != target:
        _copy(request, summary, into, target, progress=progress)
    _print(summary, request.model.path, image, target, as_json=as_json)
    warn_of_nan(summary.nan, model.contract.result, image)


def run_many_on_cluster(
    request: RunRequest,
    images: list[str],
    folder: Path,
    cluster: Cluster,
    *,
    suffix: str,
    recursive: bool,
    progress: bool,
    as_json: bool,
) -> None:
    """Run many images, into ``folder``; report failures at the end."""
    _check(request, cluster)
    suffix = suffix if suffix.startswith(".") else f".{suffix}"
    found = prepare_folder(images, folder, suffix, recursive=recursive)
    request.keep_engine = True
    pairs = [(image, result_path(image, found, folder, suffix)) for image in found.images]
    protect_run(request, [image for image, _ in pairs], [target for _, target in pairs])
    request.load()
    told: list[dict[str, Any]] = []
    failed: list[ImageOutcome] = []
    models, options = Models(request), _options(request, cluster)
    with _client(cluster, request) as client, ManyBars(len(pairs), enabled=progress) as bars:
        run = segment_many(client, models, pairs, name=str(request.model.path), **options, **_workers(request))
        try:
            for outcome in run:
                bars.done(outcome.image, failed=outcome.error is not None)
                if outcome.error is not None:
                    failed.append(outcome)
                one = outcome.told(str(request.model.path))
                told.append(one)
                if not as_json:
                    print_line(one)
                _warn(models, outcome)
        except BaseException:
            _silence()
            run.cancel()
            typer.echo("what is done is kept: resume it with --resume", err=True)
            raise
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    tell_failures([Outcome(name=one.image, error=one.error) for one in failed], len(pairs))


@dataclass(slots=True)
class Models:
    """Give the model for each image, with as few different ones as possible."""

    request: RunRequest
    _of_all_sizes: dict[str, DeployedModel] = field(default_factory=dict)
    _of_one_size: dict[tuple[str, tuple[int, int]], DeployedModel] = field(default_factory=dict)

    def __call__(self, source: Source) -> DeployedModel:
        dtype, size = str(source.dtype), (source.height, source.width)
        for kept in (self._of_one_size.get((dtype, size)), self._of_all_sizes.get(dtype)):
            if kept is not None and not kept.lacks(size):
                return kept
        model = self.request.deployed(source)
        if model.contract.obstacles or model.image_size is not None:
            while len(self._of_one_size) >= MODELS_OF_ONE_SIZE:
                del self._of_one_size[next(iter(self._of_one_size))]
            self._of_one_size[dtype, size] = model
        else:
            self._of_all_sizes[dtype] = model
        return model


def _options(request: RunRequest, cluster: Cluster) -> dict[str, Any]:
    """Return the options of ``segment`` and ``segment_many`` that say what is computed."""
    sinks = {name: request.sinks[name] for name in ("compression", "pyramid", "label", "overwrite")}
    return {
        **sinks,
        "block": cluster.block,
        "mixed": cluster.mixed,
        "source_options": request.sources,
        "plan": request.plan,
        "tile": request.tile,
        "border": request.border,
        "nodata": request.nodata,
        "nodata_label": request.nodata_label,
        "statistics": None if request.statistics is None else read_statistics(request.statistics),
        "resume": request.resume,
    }


def _workers(request: RunRequest) -> dict[str, Any]:
    """Return the options for each worker; for a local cluster they are fixed when it starts."""
    return {
        "memory_bytes": request.memory_bytes,
        "threads": request.threads,
        "engine": request.engine,
        "device": "cpu" if request.device == "auto" else request.device,
        "device_memory_bytes": request.device_memory_bytes,
    }


def _warn(models: Models, outcome: ImageOutcome) -> None:
    """Report what a result lacks."""
    if isinstance(outcome.summary, Summary):
        warn_of_damage(outcome.summary.damage, outcome.image)
    if outcome.summary is not None and outcome.summary.nan.pixels:
        source = models.request.open_source(outcome.image)
        try:
            warn_of_nan(outcome.summary.nan, models(source).contract.result, outcome.image)
        finally:
            source.close()


def _beside(target: Path) -> Path:
    """Return the path of the Zarr from which another file is made. Raises OutputExistsError."""
    found = target.with_name(f".{target.name}.zarr")
    if found.exists():
        raise OutputExistsError(
            f"{found} is the complete result of an earlier run, which was not copied to {target}. What to do: exactile "
            f"export {found} -o {target}; or remove it"
        )
    return found


def _copy(request: RunRequest, summary: ClusterSummary, made: Path, target: Path, *, progress: bool) -> None:
    """Copy the pixels of the Zarr ``made``, which is removed, to ``target``. Raises SinkError."""
    options = {**request.sinks, "resumable": False}
    source = open_source(labels_folder(made, request.sinks["label"]) if not summary.spec.channels else made)
    try:
        with Bar(target.name, enabled=progress) as bar:
            copy_pixels(source, open_sink(target, **options), summary.spec, bar.reach)
    except SinkError as error:
        raise SinkError(
            f"{error}. The result is complete in {made}. What to do: exactile export {made} -o {target}"
        ) from error
    finally:
        source.close()
    shutil.rmtree(made)


def _waited(run: Segmentation, target: Path) -> ClusterSummary:
    try:
        return run.result()
    except BaseException:
        _silence()
        run.cancel()
        if run.keeps:
            typer.echo(f"what is done of {target} is kept: resume it with --resume", err=True)
        raise


def _silence() -> None:
    """Silence messages about connections that are closed now; the error says what went wrong."""
    for name in DASK_LOGS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _check(request: RunRequest, cluster: Cluster) -> None:
    """Raise OptionError for what clusters do not support."""
    if cluster.workers is not None and cluster.address != LOCAL:
        raise OptionError("--workers are those of --cluster local; another cluster has its own")
    if cluster.address == LOCAL and request.device not in {"auto", "cpu"}:
        raise OptionError(
            f"--cluster local has workers on the CPU, and --device {request.device} was requested. What to do: without "
            "--cluster, --device cuda:all uses all GPUs of this machine; or start workers with dask-cuda, and give the "
            "scheduler's address"
        )
    unknown = {
        "--skip-background": request.skip_background is not None,
        "--tolerance": request.tolerance is not None,
        "--trial": request.trial,
        "--lanes": request.lanes is not None,
        "--preview or --overlay": any(request.pictures.values()),
        "--trace": request.trace is not None,
        "--scratch": request.scratch is not None or request.scratch_bytes is not None,
        "--on-corrupt fill": request.sources["on_corrupt"] != "fail",
        "--no-keep": not request.sinks["resumable"],
    }
    if given := [option for option, is_given in unknown.items() if is_given]:
        raise OptionError(f"--cluster does not take {', '.join(given)}. What to do: leave it out, or run without it")


@contextmanager
def _client(cluster: Cluster, request: RunRequest) -> Iterator[Client]:
    """Raise OptionError if Dask is missing, or no scheduler answers."""
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
        with client:
            _tell_dashboard(client)
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
            # Memory is bounded by plans; a worker that Dask ended for its memory would only start again.
            local = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=0,
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )
            )
        client = stack.enter_context(Client(local))
        _tell_dashboard(client)
        yield client


def _tell_dashboard(client: Client) -> None:
    if find_spec("bokeh") is not None:
        typer.echo(f"cluster: {client.dashboard_link}", err=True)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that ignore Ctrl-C: this process ends them, when their blocks have ended."""
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
        typer.echo(json.dumps(summary.told(model=str(model), image=image, target=target), indent=2))
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
