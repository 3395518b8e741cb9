"""Write adaptive pooling to a grid of bins with ONNX operators, for every height and width.

PyTorch's bin i of k along an axis of n rows contains rows h with ``floor(i*n/k) <= h < ceil((i+1)*n/k)``, which is
``i*n < (h+1)*k and h*k < (i+1)*n``: integers, without a division.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

Pool = Callable[..., Any]
Grid = tuple[int, int]
ROWS, COLUMNS = 2, 3


@contextmanager
def bins_of_any_size() -> Iterator[None]:
    """Replace ``torch.nn.functional``'s 2-D adaptive pools by operators that ONNX has, within this context."""
    mean, maximum = functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d
    functional.adaptive_avg_pool2d = _instead_of(mean, bin_means)
    functional.adaptive_max_pool2d = _instead_of(maximum, bin_maxima)
    try:
        yield
    finally:
        functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d = mean, maximum


def bin_means(image: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Average each bin of ``grid``, (rows, columns): (N, C, H, W) -> (N, C, rows, columns). One division for each."""
    masks = [bin_mask(image.shape[dim], count) for dim, count in zip((ROWS, COLUMNS), grid, strict=True)]
    found = image
    for dim, mask in zip((ROWS, COLUMNS), masks, strict=True):
        found = _each_bin(found, mask, dim, 0.0, lambda part, dim: part.sum(dim, keepdim=True))
    rows, columns = (mask.to(image.dtype).sum(1) for mask in masks)
    return found / (rows[:, None] * columns)


def bin_maxima(image: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Take the maximum of each bin of ``grid``, (rows, columns): (N, C, H, W) -> (N, C, rows, columns)."""
    found = image
    for dim, count in zip((ROWS, COLUMNS), grid, strict=True):
        mask = bin_mask(image.shape[dim], count)
        found = _each_bin(found, mask, dim, float("-inf"), lambda part, dim: part.amax(dim, keepdim=True))
    return found


def bin_mask(length: int, bins: int) -> torch.Tensor:
    """Return a (bins, length) bool array: which rows (columns) lie in which bin; neighbouring bins may share one."""
    at = torch.arange(length)
    index = torch.arange(bins)[:, None]
    return (index * length < (at + 1) * bins) & (at * bins < (index + 1) * length)


def _each_bin(
    found: torch.Tensor, mask: torch.Tensor, dim: int, outside: float, reduce: Callable[[torch.Tensor, int], Any]
) -> torch.Tensor:
    """Apply ``reduce`` to each bin along ``dim``. Values outside of the bin are ignored, infinite or not."""
    other = torch.tensor(outside, dtype=found.dtype)
    along = (-1, 1) if dim == ROWS else (-1,)
    parts = [torch.where(mask[index].reshape(along), found, other) for index in range(mask.shape[0])]
    return torch.cat([reduce(part, dim) for part in parts], dim)


def _instead_of(original: Pool, pool: Callable[[torch.Tensor, Grid], torch.Tensor]) -> Pool:
    def adaptive(input: Any, output_size: Any, *others: Any, **options: Any) -> Any:  # noqa: A002 -- PyTorch's name
        grid = _grid(output_size)
        if grid is None or grid == (1, 1) or input.dim() != COLUMNS + 1 or any(others) or any(options.values()):
            return original(input, output_size, *others, **options)  # the whole map: every exporter has an operator
        return pool(input, grid)

    return adaptive


def _grid(output_size: Any) -> Grid | None:
    """Return the grid; None where a side keeps its size."""
    sides: Sequence[Any] = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
    if len(sides) != len(("rows", "columns")) or not all(isinstance(side, int) for side in sides):
        return None
    return sides[0], sides[1]
