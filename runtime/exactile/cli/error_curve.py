"""``exactile verify --erf``: measure error against halo on images, print it, and store it with a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from exactile.contract import DeployedModel
from exactile.contract.error_curve import ErrorCurve
from exactile.errors import OptionError
from exactile.session import Session
from exactile.sources.address import shown_name
from exactile.sources.open import open_source
from exactile.sources.protocol import Source
from exactile.tolerance.measure import CurveWish

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRequest:
    """``images`` are opened with ``options``; ``wish`` says where they are sampled.

    ``memory_bytes`` bounds the resident memory of the process, as that of a ``Session`` does.
    """

    images: Sequence[str]
    options: Mapping[str, Any]
    wish: CurveWish
    memory_bytes: int | None = None

    def check(self) -> None:
        """Raise OptionError if there is no image to measure on."""
        if not self.images:
            raise OptionError("--erf needs images to measure on: give --image, once for each")

    def of_bundle(self, folder: Path, progress: Progress) -> tuple[ErrorCurve, Path]:
        """Measure the curve of the bundle ``folder``, and store it there. Raises BundleError, SinkError."""
        from exactile.bundle.opening import open_bundle
        from exactile.tolerance.curve_file import write_curve

        self.check()
        model = open_bundle(folder, error_curve=False).model  # which may be damaged
        curve = self.of(lambda _dtype: model, progress)
        return curve, write_curve(folder, curve)

    def of(self, model_for: Callable[[str], DeployedModel], progress: Progress) -> ErrorCurve:
        """Measure the curve of the model for one sample type."""
        self.check()
        with ExitStack() as stack:
            sources: dict[str, Source] = {}
            for image in self.images:
                name = Path(shown_name(image)).name
                while name in sources:
                    name += "'"
                sources[name] = stack.enter_context(closing(open_source(image, **self.options)))
            model = model_for(str(next(iter(sources.values())).dtype))
            session = stack.enter_context(closing(Session(model, device="cpu", memory_bytes=self.memory_bytes)))
            return session.error_curve(sources, self.wish, progress=progress)


def curve_object(curve: ErrorCurve) -> dict[str, Any]:
    """Return the curve as plain data, as in the file of a bundle."""
    import msgspec

    from exactile.tolerance.curve_file import curve_file

    found: dict[str, Any] = msgspec.to_builtins(curve_file(curve))
    return found


def print_curve(told: dict[str, Any]) -> None:
    """Print the plain data of a curve on stdout, as a table."""
    from exactile.tolerance.curve_file import SHARES

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    heads = ("halo, px", "scores, of their range", "other labels", "far pixels shuffled: scores", "other labels")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number == 0 else "right")
    for point in told["points"]:
        shares = (point[name] for name in SHARES)
        table.add_row(str(point["halo_px"]), *map(_share, shares))
    console = Console(highlight=False, soft_wrap=True)
    for image in told["images"]:
        height, width = image["size"]
        console.print(f"{image['name']}: {height} x {width} pixels, {image['zones']} zones", markup=False)
    height, width = told["tile"]
    console.print(f"error against halo, exact tiles of {height} x {width}:")
    console.print(table)


def _share(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.2e}" if value else "0"
