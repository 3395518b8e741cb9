"""Options of ``exactile convert`` for engines, and the settings that they make together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from exactile.cli.values import parse_capabilities
from exactile.errors import OptionError
from exactile.plan.budget import parse_bytes

PANEL = "Engines"


class BackendChoice(StrEnum):
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


class EnginePrecisionChoice(StrEnum):
    fp32 = "fp32"
    tf32 = "tf32"
    fp16 = "fp16"


EngineOption = Annotated[
    BackendChoice | None,
    typer.Option(
        help="Build engines beside the bundle: tensorrt for the GPU in this machine, tensorrt-rtx for any, and "
        "without one.",
        rich_help_panel=PANEL,
    ),
]
EnginePrecisionOption = Annotated[
    EnginePrecisionChoice | None,
    typer.Option(
        help="Precision of the engines; tf32 rounds in multiplications. [default: the bundle's]", rich_help_panel=PANEL
    ),
]
CapabilityOption = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="GPUs to build for, e.g. 8.6,8.9. [default: all from 8.6 on (tensorrt-rtx); this GPU's (tensorrt)]",
        rich_help_panel=PANEL,
    ),
]
BatchOption = Annotated[
    int | None, typer.Option(min=1, help="Tiles per inference. [default: 1]", rich_help_panel=PANEL)
]
StripRowsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Also build engines for strips of this many rows: first, body, last.", rich_help_panel=PANEL
    ),
]
StripWidthOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Width in columns of a padded band of strips. [default: 4096 or more]", rich_help_panel=PANEL
    ),
]
WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES", help="GPU memory that one inference may use as workspace, e.g. 4GiB.", rich_help_panel=PANEL
    ),
]
TimingCacheOption = Annotated[
    Path | None,
    typer.Option(
        help="File of TensorRT's timings from earlier builds, read and updated.", show_default=False,
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
LevelOption = Annotated[
    int | None,
    typer.Option(
        "--optimization-level", min=0, max=5, help="Time to spend on building. [default: TensorRT's, 3]",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The options as given; all but ``backend`` belong to it."""

    backend: BackendChoice | None
    precision: EnginePrecisionChoice | None
    compute_capability: str | None
    batch: int | None
    strip_rows: int | None
    strip_width: int | None
    workspace: str | None
    timing_cache: Path | None
    optimization_level: int | None

    def build(self, builder: ModuleType, *, tile: tuple[int, int] | None, rebuild: bool) -> Any:
        """Return the settings of a build. Raises OptionError."""
        return builder.EngineSettings(
            backend=(self.backend or BackendChoice.tensorrt).value,
            precision=self.precision.value if self.precision is not None else None,
            tile=tile,
            batch=self.batch or 1,
            strip_rows=self.strip_rows,
            strip_width=self.strip_width,
            compute_capabilities=parse_capabilities(self.compute_capability),
            workspace_bytes=parse_bytes(self.workspace, option="--workspace"),
            timing_cache=self.timing_cache,
            optimization_level=self.optimization_level,
            rebuild=rebuild,
        )

    def check(self) -> None:
        """Raise OptionError if options for engines are given without an engine."""
        if self.backend is not None:
            return
        given = {
            "--engine-precision": self.precision,
            "--compute-capability": self.compute_capability,
            "--batch": self.batch,
            "--strip-rows": self.strip_rows,
            "--strip-width": self.strip_width,
            "--workspace": self.workspace,
            "--timing-cache": self.timing_cache,
            "--optimization-level": self.optimization_level,
        }
        named = ", ".join(name for name, value in given.items() if value is not None)
        if named:
            raise OptionError(f"{named}: for engines alone; add --engine tensorrt or --engine tensorrt-rtx")
