"""Draw the pictures of a verification as PNG in base64; matplotlib is loaded when the first one is drawn."""

from __future__ import annotations

import base64
import io
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.errors import OptionError
from exactile_converters.verify.sweep import Sweep

LARGEST_MAP_PX = 1200
SMALLEST_SHOWN = 1e-12


def require_matplotlib() -> None:
    """Raise OptionError saying what to install."""
    try:
        import_module("matplotlib.figure")
    except ImportError as error:
        raise OptionError(
            f"--report draws with matplotlib ({error.name} is missing): pip install 'exactile[report]'"
        ) from error


def map_png(errors: NDArray[np.float32], title: str) -> str:
    """Draw the error map (H, W) in logarithmic colours; pixels without any error are dark."""
    shown = _reduced(errors)
    largest = float(shown[np.isfinite(shown)].max(initial=0.0))
    figure, axes = _figure(7, 5.5)
    axes.set_title(title if largest else f"{title}: none")
    if largest:
        least = max(largest * 1e-7, SMALLEST_SHOWN)
        scale = import_module("matplotlib.colors").LogNorm(vmin=least, vmax=largest)
        drawn = axes.imshow(np.clip(shown, least, largest), norm=scale, cmap="magma", extent=_extent(errors))
        figure.colorbar(drawn, ax=axes, label="largest difference over the channels")
    else:
        axes.imshow(np.zeros_like(shown), cmap="magma", vmin=0, vmax=1, extent=_extent(errors))
    axes.set_xlabel("x, output pixels")
    axes.set_ylabel("y, output pixels")
    return _png(figure)


def curve_png(sweep: Sweep) -> str:
    """Draw RMSE and share of different labels against the halo."""
    figure, axes = _figure(7, 4)
    halos = [point.halo_px for point in sweep.halos]
    rmse = [point.rmse for point in sweep.halos]
    wrong = [point.different_labels for point in sweep.halos]
    axes.plot(halos, rmse, "o-", color="tab:blue", label="RMSE")
    axes.set_yscale("symlog", linthresh=_threshold(rmse))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("halo, input pixels")
    axes.set_ylabel("RMSE", color="tab:blue")
    other = axes.twinx()
    other.plot(halos, wrong, "s--", color="tab:red", label="different labels")
    other.set_yscale("symlog", linthresh=1)
    other.set_ylim(bottom=0)
    other.set_ylabel("different labels", color="tab:red")
    axes.set_title("Tiled against whole: error against halo")
    return _png(figure)


def _threshold(values: list[float]) -> float:
    """Return the value above which the curve is logarithmic; it shows 0 as 0."""
    positive = [value for value in values if 0 < value < float("inf")]
    return min(positive) if positive else 1.0


def _reduced(errors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce the map for display: the largest error of each block, so that no thin seam is lost."""
    factor = -(-max(errors.shape) // LARGEST_MAP_PX)
    if factor == 1:
        return errors
    height, width = (-(-size // factor) * factor for size in errors.shape)
    padded = np.pad(errors, [(0, height - errors.shape[0]), (0, width - errors.shape[1])])
    return np.asarray(padded.reshape(height // factor, factor, width // factor, factor).max(axis=(1, 3)))


def _extent(errors: NDArray[np.float32]) -> tuple[int, int, int, int]:
    return 0, errors.shape[1], errors.shape[0], 0


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _png(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
