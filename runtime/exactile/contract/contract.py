"""What the converter promises about a model, without its graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exactile.contract.image import ImageInput
from exactile.contract.memory_model import MemoryModel
from exactile.contract.result import ResultOutput
from exactile.geometry import Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How it is known that tiles and strips of a model equal one pass.

    ``by`` is "running" where the model was run in tiles, in strips and in one pass, and compared; "rules" where only
    its graph was read; "one pass" where there is nothing else; "probe" where no rule proves it, and its halo is that
    which runs found: not proven. ``note`` says what was found, or why nothing was run.
    """

    by: Literal["running", "rules", "one pass", "probe"] = "rules"
    note: str = ""

    @property
    def sentence(self) -> str:
        words = {
            "running": "proved by running",
            "rules": "by rules only",
            "one pass": "it is one pass",
            "probe": "not proven, trusted by --trust-probe",
        }[self.by]
        return f"{words}: {self.note}" if self.note else words


BY_RULES = Verification()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """A model as the runtime sees it.

    ``obstacles`` to exact tiling, in words: where there are any, the model runs in one pass, over images of
    ``only_size``, (height, width). ``in_passes``: they are statistics of the whole image, and deployed in another way
    the network runs in tiles, after passes that find them. ``mac_per_pixel`` is what one pass computes for each pixel
    of the image, in multiply-accumulates in float32; operators that memory bounds count as many as take as long. 0: not
    known. ``notes`` are sentences for people on what the model's own file declares, ``pixel_size_um`` the pixel in
    micrometres that it was made for; None where it does not say so.
    """

    model_name: str
    geometry: Geometry
    image: ImageInput
    result: ResultOutput
    memory: MemoryModel
    verification: Verification = BY_RULES
    obstacles: tuple[str, ...] = ()
    only_size: tuple[int, int] | None = None
    in_passes: bool = False
    mac_per_pixel: float = 0.0
    notes: tuple[str, ...] = ()
    pixel_size_um: float | None = None
