"""The request for images on a cluster, as plain data; ``exactile.distributed.segment`` documents each option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exactile.contract import DeployedModel
from exactile.errors import DeviceError, OptionError
from exactile.passes.fixed import FixedStatistics
from exactile.plan.border import Border
from exactile.planning import PlanName, Wish
from exactile.runs.run_record import asked_record
from exactile.session import Session
from exactile.sources.protocol import Source

GPU_RESOURCE = "GPU"
"""The resource that workers with a GPU declare: ``dask worker --resources GPU=1``."""

BLOCK_PX = 4096
"""Edge of a block: some seconds of work, and three levels of a pyramid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of the run; ``memory_bytes``, ``threads``, ``engine`` and the device are those of each worker.

    ``device`` is ``cpu``, or as for ``Session``; ``cuda:0`` is the first GPU that a worker sees.
    """

    source_options: Mapping[str, Any] = field(default_factory=dict)
    plan: PlanName = "auto"
    tile: tuple[int, int] | None = None
    border: Border = "model"
    memory_bytes: int | None = None
    threads: int | None = None
    engine: str = "auto"
    device: str = "cpu"
    device_memory_bytes: int | None = None
    nodata: float | None = None
    nodata_label: int | None = None
    statistics: FixedStatistics | None = None
    resume: bool = False
    mixed: bool = False

    def __post_init__(self) -> None:
        if self.device == "auto":
            raise OptionError(
                "--device auto could be different on each worker. What to do: give cpu, or cuda:0, the first GPU "
                "that a worker sees"
            )
        if self.plan == "whole":
            raise OptionError("--plan whole is one pass, which cannot be shared. What to do: run it without a cluster")

    @property
    def resource(self) -> str | None:
        """The resource that a worker must have, if any worker has it."""
        return None if self.device == "cpu" else GPU_RESOURCE

    @property
    def wish(self) -> Wish:
        return Wish(plan=self.plan, tile=self.tile, border=self.border)

    @property
    def arguments(self) -> dict[str, Any]:
        """The options of ``Session.image_run``, as ``exactile run`` gives them without a cluster."""
        return {
            "on_corrupt": self.source_options.get("on_corrupt", "fail"),
            "corrupt_value": self.source_options.get("corrupt_value"),
            "nodata": None if self.nodata is None else str(self.nodata),
        }

    def asked(self, model: DeployedModel, source: Source, processor: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request for ``source``, for its record: as of ``ImageRun.asked``."""
        arguments = self.arguments
        if self.nodata_label is not None:
            arguments["nodata_label"] = self.nodata_label
        if self.statistics is not None:
            arguments["statistics"] = self.statistics.identity
        return asked_record(model, source, self.wish, arguments, processor)

    def planning_session(self, model: DeployedModel) -> Session:
        """Return the client's processor. Raises DeviceError if it has no GPU to plan for."""
        try:
            return self.session(model)
        except DeviceError as error:
            raise DeviceError(
                f"{error}. The client plans for its workers, and needs a GPU of their kind. What to do: start it on a "
                "machine of theirs"
            ) from error

    def session(self, model: DeployedModel, *, keep_engine: bool = False) -> Session:
        """Return a session that computes in a worker, or plans."""
        return Session(
            model,
            memory_bytes=self.memory_bytes,
            threads=self.threads,
            keep_engine=keep_engine,
            device=self.device,
            device_memory_bytes=self.device_memory_bytes,
            engine=self.engine,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRequest:
    """Return the request for results."""

    block: int = BLOCK_PX
    compression: str | None = None
    pyramid: bool | None = None
    label: str | None = None
    overwrite: bool = False
