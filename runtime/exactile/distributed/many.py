"""Run many images on a cluster: a small one by one worker, a large one in blocks by all of them."""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exactile.contract import DeployedModel
from exactile.distributed.job import Batch, ImageReport, ImagesWork, ModelWork, OneImage
from exactile.distributed.request import BLOCK_PX, OutputRequest, Request
from exactile.distributed.segmentation import address_of, segment
from exactile.distributed.summary import ClusterSummary
from exactile.distributed.tasks import Tasks
from exactile.distributed.worker import run_image
from exactile.errors import CancelledError, ExactileError
from exactile.input_protection import check_source_kept
from exactile.request.records import check_complete, pending_path, record_path, write_record
from exactile.request.told import summary_object, versions
from exactile.runs.summary import Summary
from exactile.session import Session
from exactile.sinks.open import open_sink
from exactile.sinks.protocol import FindingsSink
from exactile.sinks.resume.unfinished import is_something_left
from exactile.sinks.zarr.sink import zarr_target
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.open import open_source
from exactile.sources.protocol import Source
from exactile.threads.waited_thread import WaitedThread

if TYPE_CHECKING:
    from distributed import Client, Future

LARGE_SIDE_BY_SIDE = 2
"""Number of images in blocks: while the last blocks of one are computed, those of the next begin."""

ModelOf = Callable[[Source], DeployedModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """The outcome of ``image``: a summary, an error, or neither if an earlier run had completed it.

    ``worker`` is the worker of an image that one worker ran.
    """

    image: str
    target: Path
    summary: Summary | ClusterSummary | None = None
    error: Exception | None = None
    worker: str = ""

    def told(self, model: str) -> dict[str, Any]:
        """Return it as plain data; ``model`` is its name."""
        about = {"image": self.image, "output": str(self.target)}
        if self.error is not None:
            return {**about, "error": str(self.error)}
        if self.summary is None:
            return {**about, "complete": True}
        if isinstance(self.summary, ClusterSummary):
            return self.summary.told(model=model, image=self.image, target=self.target)
        told = summary_object(self.summary, model=model, image=self.image, target=self.target)
        return {**told, "worker": self.worker}


def segment_many(
    client: Client,
    model: DeployedModel | ModelOf,
    images: Iterable[tuple[str | PathLike[str], str | PathLike[str]]],
    *,
    name: str = "",
    block: int = BLOCK_PX,
    compression: str | None = None,
    pyramid: bool | None = None,
    label: str | None = None,
    overwrite: bool = False,
    **request: Any,
) -> ManySegmentations:
    """Segment ``images``, pairs of an image and its target, on the workers of ``client``; return at once.

    The ``ManySegmentations`` yields the outcome of each, nearly in order: a failure does not stop the others. ``model``
    is the model of all, or a function that returns that of an image. An image that is larger than a block, and whose
    target is a Zarr, runs in blocks; any other on one worker, into a file of any kind. Beside each result
    ``TARGET.json`` records what made it; ``name`` is the model's there (default: its own). With ``resume``, images that
    such a file records as complete are skipped, and unfinished ones are resumed. Further options are those of
    ``segment``.

    Raises OptionError; other errors are in the outcome of the image.
    """
    output = OutputRequest(block=block, compression=compression, pyramid=pyramid, label=label, overwrite=overwrite)
    model_of = model if callable(model) else lambda _source: model
    pairs = ((address_of(image), Path(target)) for image, target in images)
    return ManySegmentations(client, model_of, pairs, Request(**request), output, name)


class ManySegmentations:
    """Runs in progress on a cluster. Iterate over it for an ``ImageOutcome`` of each image."""

    def __init__(
        self,
        client: Client,
        model_of: ModelOf,
        images: Iterator[tuple[str, Path]],
        request: Request,
        output: OutputRequest,
        name: str,
    ) -> None:
        self._client, self._model_of, self._images, self._name = client, model_of, images, name
        self._request, self._output = request, output
        self._sink_options: dict[str, Any] = {
            "compression": output.compression,
            "pyramid": output.pyramid,
            "label": output.label,
            "overwrite": output.overwrite,
            "resumable": True,
        }
        self._stop = threading.Event()
        self._outcomes: queue.SimpleQueue[ImageOutcome | BaseException | None] = queue.SimpleQueue()
        self._large: queue.SimpleQueue[tuple[int, _Image] | None] = queue.SimpleQueue()
        self._models: dict[int, _Model] = {}
        self._thread = WaitedThread(target=self._work, name="exactile-cluster", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[ImageOutcome]:
        """Raise ClusterError if the cluster is gone, CancelledError."""
        while isinstance(found := self._outcomes.get(), ImageOutcome):
            yield found
        self._outcomes.put(found)  # for later calls
        if found is not None:
            raise found

    def cancel(self) -> None:
        """Cancel all images, and wait for that; finished parts are kept for ``resume``."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        in_blocks = [
            WaitedThread(target=self._run_large, name=f"exactile-cluster-{number}", daemon=True)
            for number in range(LARGE_SIDE_BY_SIDE)
        ]
        for thread in in_blocks:
            thread.start()
        failure: BaseException | None = None
        try:
            self._run_small()
        except BaseException as error:  # noqa: BLE001 -- raised when outcomes are taken
            failure = error
            self._stop.set()
        for _ in in_blocks:
            self._large.put(None)
        for thread in in_blocks:
            thread.join()
        for model in self._models.values():
            model.session.close()
        if failure is None and self._stop.is_set():
            failure = CancelledError("the run was cancelled")
        self._outcomes.put(failure)

    def _run_small(self) -> None:
        """Open all images in order, and run those that one worker can run."""
        tasks = Tasks(self._client, Batch(key=secrets.token_hex(8)), self._stop, resource=self._request.resource)
        try:
            tasks.wait_for_workers()
            work = ImagesWork(request=self._request, sink_options=self._sink_options)
            for (one, _), result in tasks.run(run_image, work, self._pieces(tasks), keep_going=True):
                self._ended(one, result)
        except BaseException:
            tasks.cancel()
            raise
        tasks.end()

    def _pieces(self, tasks: Tasks) -> Iterator[tuple[OneImage, Future]]:
        for number, (address, target) in enumerate(self._images):
            try:
                found = self._looked_at(address, target)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the other images continue
                self._tell(ImageOutcome(image=address, target=target, error=error))
                continue
            if found is None:
                self._tell(ImageOutcome(image=address, target=target))
            elif self._is_large(found):
                self._large.put((number, found))
            else:
                self._begin(found)
                one = OneImage(
                    address=address,
                    target=str(target),
                    image=found.identity,
                    processor=dict(found.model.session.processor_identity),
                    asked=found.asked,
                )
                yield one, found.model.sent(tasks)

    def _looked_at(self, address: str, target: Path) -> _Image | None:
        """Return what there is to run; None if an earlier run has completed it.

        Raises SourceError, OutputExistsError, ResumeError, and the refusals of the model.
        """
        request = self._request
        source = open_source(address, **request.source_options)
        try:
            model = self._model(self._model_of(source))
            leave_out_alpha(source, model.session.contract.image.channels)
            sink = open_sink(target, **self._sink_options)
            check_source_kept(source, sink)
            asked = request.asked(model.model, source, model.session.processor_identity)
            if target.exists() and not self._output.overwrite:
                check_complete(target, asked, resume=request.resume)
                return None
            if isinstance(sink, FindingsSink):  # an unfinished run is resumed, removed or refused
                sink.reserve(resume=request.resume)
                sink.abort()
            return _Image(
                address=address,
                target=target,
                size=(source.height, source.width),
                identity=source.identity(),
                model=model,
                asked=asked,
            )
        finally:
            source.close()

    def _begin(self, image: _Image) -> None:
        """Write beside the result what is being run. Raises SinkError."""
        write_record(pending_path(image.target), {"run": image.asked, "versions": versions()})

    def _model(self, model: DeployedModel) -> _Model:
        """Return the model with a session, which is asked what computes it."""
        if id(model) not in self._models:
            self._models[id(model)] = _Model(model=model, session=self._request.planning_session(model))
        return self._models[id(model)]

    def _is_large(self, image: _Image) -> bool:
        obstacles = image.model.model.contract.obstacles
        return zarr_target(image.target) and max(image.size) > self._output.block and not obstacles

    def _run_large(self) -> None:
        """Run images in blocks, one after the other."""
        while (found := self._large.get()) is not None:
            number, image = found
            if self._stop.is_set():
                continue
            outcome, record = ImageOutcome(image=image.address, target=image.target), dict[str, Any]()
            try:
                self._begin(image)
                summary = self._in_blocks(number, image)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the other images continue
                outcome = replace(outcome, error=error)
            else:
                outcome, record = replace(outcome, summary=summary), {**summary.record, **image.asked}
                record = {"run": record, "workers": summary.machines}
            self._finish(outcome, record)

    def _in_blocks(self, number: int, image: _Image) -> ClusterSummary:
        run = segment(
            self._client,
            image.model.model,
            image.address,
            image.target,
            priority=-number,
            **_fields(self._output),
            **_fields(self._request),
        )
        while True:
            try:
                return run.result(0.2)
            except TimeoutError:
                if self._stop.is_set():
                    run.cancel()

    def _ended(self, one: OneImage, result: ImageReport | Exception) -> None:
        outcome, record = ImageOutcome(image=one.address, target=Path(one.target)), dict[str, Any]()
        if isinstance(result, Exception):
            outcome = replace(outcome, error=result)
        else:  # the worker may have chosen another form of the model, with the same result
            outcome = replace(outcome, summary=result.summary, worker=result.worker)
            record = {"run": {**result.record, **one.asked}, "workers": {result.worker: result.machine}}
        self._finish(outcome, record)

    def _finish(self, outcome: ImageOutcome, record: Mapping[str, Any]) -> None:
        """Write the record, and report the outcome; an image whose record cannot be written has failed."""
        target = outcome.target
        try:
            if outcome.error is None:
                told = outcome.told(self._name or record["run"]["model"]["name"])
                write_record(record_path(target), {**record, "versions": versions(), "summary": told})
                pending_path(target).unlink(missing_ok=True)
            elif not is_something_left(target):
                pending_path(target).unlink(missing_ok=True)
        except (ExactileError, OSError) as error:
            outcome = ImageOutcome(image=outcome.image, target=target, error=error)
        self._tell(outcome)

    def _tell(self, outcome: ImageOutcome) -> None:
        self._outcomes.put(outcome)


@dataclass(slots=True, kw_only=True)
class _Model:
    """A model, a session that plans with it, and a future for it on the cluster, once it was sent."""

    model: DeployedModel
    session: Session
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    future: Future | None = None

    def sent(self, tasks: Tasks) -> Future:
        if self.future is None:
            self.future = tasks.share(f"model-{self.key}", ModelWork(key=self.key, model=self.model))
        return self.future


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """An image to run. ``size`` is (height, width)."""

    address: str
    target: Path
    size: tuple[int, int]
    identity: Mapping[str, Any]
    model: _Model
    asked: Mapping[str, Any]


def _fields(request: Request | OutputRequest) -> dict[str, Any]:
    return {one.name: getattr(request, one.name) for one in fields(request)}
