"""Images on many machines: blocks of one, or whole small ones, are tasks of Dask.

::

    client       plans, merges statistics, makes the Zarr, submits blocks, keeps account of them, names the Zarr
    worker       opens source and engine once; of each block it runs the part of the plan that gives it

    job          plain data for workers                       tasks          submitting, retrying, taking over
    preparation  what comes before the blocks                 findings       statistics, by map and reduce
    segmentation one image in blocks                          many           many images

``segment`` and ``segment_many`` return at once; ``result`` and outcomes wait. Needs the extra ``cluster``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exactile.distributed.many import ImageOutcome, ManySegmentations, segment_many
    from exactile.distributed.segmentation import Segmentation, segment
    from exactile.distributed.summary import ClusterSummary

__all__ = ["ClusterSummary", "ImageOutcome", "ManySegmentations", "Segmentation", "segment", "segment_many"]

_ROOMS = {
    "ClusterSummary": "summary",
    "ImageOutcome": "many",
    "ManySegmentations": "many",
    "Segmentation": "segmentation",
    "segment": "segmentation",
    "segment_many": "many",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"exactile.distributed.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'exactile.distributed' has no attribute {name!r}")
