"""The request of ``exactile convert``, apart from engines."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

from exactile.cli.normalization import NormalizationOptions
from exactile.cli.options import ActivationChoice, OutputChoice
from exactile.cli.values import parse_names, parse_tile
from exactile.contract.file_names import CONTRACT_NAME
from exactile.errors import OptionError
from exactile.passes.fixed import read_statistics
from exactile.request.stages import Stages


class DtypeChoice(StrEnum):
    uint8 = "uint8"
    uint16 = "uint16"
    float32 = "float32"


class MapDtypeChoice(StrEnum):
    float32 = "float32"
    float16 = "float16"
    uint8 = "uint8"


class PrecisionChoice(StrEnum):
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class CalibrationChoice(StrEnum):
    best = "best"
    percentile = "percentile"
    entropy = "entropy"
    minmax = "minmax"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """The options as given."""

    source: Path | None
    target: Path | None
    torch: str | None
    weights: Path | None
    input_channels: int | None
    dtype: DtypeChoice | None
    normalization: NormalizationOptions
    output: OutputChoice | None
    map_dtype: MapDtypeChoice | None
    threshold: float | None
    activation: ActivationChoice | None
    precision: PrecisionChoice | None
    calibrate: list[Path] | None
    calibration_page: int | None
    calibration: CalibrationChoice | None
    output_name: str | None
    tile: str | None
    classes: str | None
    colors: str | None
    codes: str | None
    freeze_statistics: Path | None
    overwrite: bool
    verify: bool
    trust_probe: bool
    progress: bool

    @property
    def tile_shape(self) -> tuple[int, int] | None:
        """Return (height, width) of the tile. Raises OptionError."""
        return parse_tile(self.tile)

    def bundle(self, *, engines: bool) -> Path | None:
        """Return the bundle that the source already is, None if it is a network.

        Raises OptionError if an option would change the bundle, or if no ``engines`` are requested.
        """
        source = self.source
        if source is None or not (source.name == CONTRACT_NAME or (source / CONTRACT_NAME).is_file()):
            return None
        folder = source.parent if source.name == CONTRACT_NAME else source
        if not engines:
            raise OptionError(f"{folder} is a bundle already; --engine tensorrt or tensorrt-rtx builds engines for it")
        if self.target is not None and self.target.resolve() != folder.resolve():
            raise OptionError(f"engines are in the bundle's folder {folder}; leave -o {self.target} out")
        if self.precision is not None:
            raise OptionError(f"{folder} is a bundle already; the precision of engines is --engine-precision")
        named = [name for name, value in self._of_networks().items() if value is not None]
        given = ", ".join([*named, *self.normalization.given])
        if given:
            raise OptionError(f"{folder} is a bundle already, and {given} would change it; leave it out")
        return folder

    def check(self) -> Path:
        """Return the path of the new bundle. Raises OptionError if options contradict each other or are missing."""
        if self.target is None:
            raise OptionError("give the path of the bundle: -o BUNDLE")
        if (self.source is None) == (self.torch is None):
            raise OptionError("give either a file to convert or --torch MODULE:FACTORY")
        if self.trust_probe and not self.verify:
            raise OptionError("--trust-probe relies on runs that compare tiles with one pass; leave --no-verify out")
        if self.weights is not None and self.torch is None:
            raise OptionError("--weights belongs to --torch MODULE:FACTORY, which builds the network they are for")
        return self.target

    def run(self, maker: ModuleType) -> Any:
        """Convert with ``maker``, which is ``exactile_converters.convert``, and return the outcome."""
        tile_shape = self.tile_shape
        statistics = read_statistics(self.freeze_statistics) if self.freeze_statistics is not None else None
        normalization = self.normalization.build(maker) if self.normalization.given else None
        names = {"output_name": self.output_name, "input_channels": self.input_channels}
        if self.torch is not None:
            entry = maker.load_factory(self.torch, self.weights, **names)
        else:
            entry = maker.load_entry(self.source, **names)
        from exactile.sources.open import open_source

        with ExitStack() as opened:
            stages = opened.enter_context(Stages(enabled=self.progress))
            images = [
                opened.enter_context(closing(open_source(path, page=self.calibration_page)))
                for path in self.calibrate or ()
            ]
            return maker.convert_entry(
                entry,
                self.target,
                image_dtype=self.dtype.value if self.dtype is not None else None,
                normalization=normalization,
                output=self.output.value if self.output is not None else None,
                map_dtype=self.map_dtype.value if self.map_dtype is not None else None,
                threshold=self.threshold,
                activation=self.activation.value if self.activation is not None else None,
                precision=(self.precision or PrecisionChoice.fp32).value,
                calibration=None if self.calibration in (None, CalibrationChoice.best) else self.calibration.value,
                calibration_images=images,
                tile=tile_shape,
                classes=parse_names(self.classes),
                colors=parse_names(self.colors),
                codes=parse_names(self.codes),
                statistics=statistics,
                overwrite=self.overwrite,
                verify=self.verify,
                trust_probe=self.trust_probe,
                progress=lambda done, steps: stages.update("checking tiles and strips", done, steps),
                calibrating=lambda done, steps: stages.update("comparing forms of int8", done, steps),
            )

    def _of_networks(self) -> dict[str, object]:
        """Return options that have no meaning for a bundle; those of the normalisation are in ``normalization``."""
        return {
            "--torch": self.torch,
            "--weights": self.weights,
            "--input-channels": self.input_channels,
            "--dtype": self.dtype,
            "--output": self.output,
            "--map-dtype": self.map_dtype,
            "--threshold": self.threshold,
            "--activation": self.activation,
            "--calibrate": self.calibrate or None,
            "--page": self.calibration_page,
            "--calibration": self.calibration,
            "--output-name": self.output_name,
            "--classes": self.classes,
            "--colors": self.colors,
            "--class-codes": self.codes,
            "--freeze-statistics": self.freeze_statistics,
            "--trust-probe": self.trust_probe or None,
        }
