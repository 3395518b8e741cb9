"""One image on many machines: blocks of it are tasks of Dask, whose workers write chunks of one Zarr.

::

    client       plans, makes the Zarr, submits blocks, keeps account of them in a journal, names the Zarr
    worker       opens source and engine once; of each block it runs the part of the plan that gives it

``segment`` returns at once; its ``result`` waits. Needs the extra ``cluster``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exactile.distributed.segmentation import ClusterSummary, Segmentation, segment

__all__ = ["ClusterSummary", "Segmentation", "segment"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("exactile.distributed.segmentation"), name)
    raise AttributeError(f"module 'exactile.distributed' has no attribute {name!r}")
