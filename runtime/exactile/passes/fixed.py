"""Fixed statistics: found once, of some images, and used for every image that is run with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.errors import OptionError

WAY_OUT = "exactile measure MODEL IMAGES... -o statistics.json (Session.measure_statistics) finds them beforehand"
"""The remedy if statistics of the image itself cannot be waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedStatistics:
    """Fixed statistics of the whole image for a network: ``values`` by graph input, float32.

    They are those of all ``pixels`` of ``images``, given by name, as the network ``model`` found them; ``belongs_to``
    is its ``DeployedModel.statistics_key``. ``file`` is the name of the file that they were read from.
    """

    values: Mapping[str, NDArray[np.float32]]
    model: str
    belongs_to: str
    images: tuple[str, ...]
    pixels: int
    file: str = ""

    def __post_init__(self) -> None:
        broken = [name for name, array in self.values.items() if not np.isfinite(array).all()]
        if broken:
            raise OptionError(
                f"{self.model}: {broken[0]} is not a finite number over these images, so it can be no statistic; look "
                "for samples that are not finite, and for a wrong --scale, --mean or --std"
            )

    @property
    def identity(self) -> str:
        """SHA-256 of the values and of what they belong to."""
        found = hashlib.sha256(self.belongs_to.encode())
        for name in sorted(self.values):
            array = np.ascontiguousarray(self.values[name], np.float32)
            found.update(f"{name} {array.shape}".encode())
            found.update(array.astype("<f4").tobytes())
        return found.hexdigest()

    @property
    def told(self) -> str:
        """Their origin, for people."""
        count = len(self.images)
        pixels = f"{self.pixels / 1e6:.1f} Mpx" if self.pixels >= 100_000 else f"{self.pixels} px"
        return f"{f'{self.file}: ' if self.file else ''}{count} image{'s' if count != 1 else ''}, {pixels}"

    def write(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the file ``path``, .json, which appears when it is complete.

        Raises OptionError for another suffix, OutputExistsError, SinkError.
        """
        from exactile.passes.statistics_file import write

        write(self, Path(path), overwrite=overwrite)

    def check(self, model: DeployedModel) -> None:
        """Raise OptionError if they are not those of ``model``."""
        name = model.contract.model_name
        check_takes_statistics(model)
        wanted = {
            one_name: shape
            for level in model.levels
            for statistic in level.statistics
            for one_name, shape in zip(statistic.inputs, statistic.shapes, strict=True)
        }
        self.check_names(name, wanted)
        self.check_key(name, model.statistics_key)

    def check_names(self, name: str, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Raise OptionError if the network ``name`` takes other ones: ``wanted`` are their shapes."""
        check_names(name, wanted, self.values, measured_with=self.model)

    def check_key(self, name: str, key: str) -> None:
        """Raise OptionError if statistics of the network ``name`` belong to another ``key``."""
        if self.belongs_to != key:
            raise OptionError(
                f"these statistics, measured with {self.model}, are not those of {name} as it is given: its weights, "
                "its normalisation (--scale, --mean, --std, --normalize) or the type of the images' samples are "
                "others; measure them again, with the same options"
            )


def check_names(
    name: str,
    wanted: Mapping[str, tuple[int, ...]],
    values: Mapping[str, NDArray[np.float32]],
    *,
    measured_with: str,
) -> None:
    """Raise OptionError if the network ``name`` takes others than ``values``: ``wanted`` are their shapes."""
    given = {key: array.shape for key, array in values.items()}
    if given == dict(wanted):
        return
    missing, other = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    differs = "their shapes differ"
    if missing or other:
        differs = f"missing: {', '.join(missing[:3])}" if missing else f"unknown: {', '.join(other[:3])}"
    raise OptionError(
        f"these are statistics of another network, {measured_with}, and not of {name} ({differs}); measure them again"
    )


def check_takes_statistics(model: DeployedModel) -> None:
    """Raise OptionError if ``model`` has no passes that find statistics."""
    contract = model.contract
    if model.levels and model.statistics_key:
        return
    if model.levels:
        raise OptionError(f"{contract.model_name} does not say what its statistics belong to: convert the model again")
    if contract.in_passes:
        raise OptionError(
            f"{contract.model_name} was deployed for one pass over the whole image, which finds its statistics itself; "
            "deploy it in passes (deploy_in_passes)"
        )
    why = f": {contract.obstacles[0]} is in the way" if contract.obstacles else ""
    raise OptionError(f"{contract.model_name} takes no statistics of the whole image that could be fixed{why}")


def read_statistics(path: str | PathLike[str]) -> FixedStatistics:
    """Read a file of ``exactile measure``. Raises OptionError for a file that is missing, damaged or another one."""
    from exactile.passes.statistics_file import decode

    return decode(Path(path))
