"""Options of a build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from exactile.contract.built_engine import Backend
from exactile.errors import OptionError
from exactile_converters.device.form import DevicePrecision

BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[DevicePrecision, ...] = get_args(DevicePrecision)
HIGHEST_LEVEL = 5
MOST_BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Engines for tiles, and for strips where ``strip_rows`` is given.

    ``precision`` defaults to the bundle's. ``tile`` is the padded tile's (height, width), by default the bundle's;
    ``strip_width`` the columns of a padded band, by default those of the tile or, where that is more,
    ``USUAL_BAND_PX``. ``compute_capabilities``: by default, TensorRT-RTX builds for all that it supports from 8.6 on,
    TensorRT only for the installed GPU. ``workspace_bytes`` is the most device memory of an execution in addition to
    its inputs and outputs. ``rebuild``: also build engines that already exist and fit.
    """

    backend: Backend
    precision: DevicePrecision | None = None
    tile: tuple[int, int] | None = None
    batch: int = 1
    strip_rows: int | None = None
    strip_width: int | None = None
    compute_capabilities: tuple[tuple[int, int], ...] | None = None
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    optimization_level: int | None = None
    rebuild: bool = False

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise OptionError(f"engines are built by {' or '.join(BACKENDS)}; got {self.backend!r}")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise OptionError(f"the precision of an engine is {', '.join(PRECISIONS)}; got {self.precision!r}")
        if not 1 <= self.batch <= MOST_BATCH:
            raise OptionError(f"a batch is 1 to {MOST_BATCH} tiles; got {self.batch}")
        if self.strip_width is not None and self.strip_rows is None:
            raise OptionError("--strip-width belongs to --strip-rows, which asks for engines for strips")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise OptionError(f"a workspace has at least one byte; got {self.workspace_bytes}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= HIGHEST_LEVEL:
            raise OptionError(f"the optimisation level is 0 to {HIGHEST_LEVEL}; got {self.optimization_level}")
        if self.compute_capabilities == ():
            raise OptionError("name at least one compute capability, such as 8.6, or leave the option out")
