"""What the converter promises about a model, and the runtime relies on.

::

    contract        the image it takes, its result, its geometry and memory, and how this is known
    image           the image, and statistics of all of it that enter the normalisation
    result          labels and what they mean, or maps
    memory_model    the memory of one inference
    strip_model     its graphs for strips, and the rows that each hands to the next
    placed_model    its graphs that take the position of a tile or strip
    statistic       statistics of a whole feature map that it takes
    kept_map        maps that are kept between the passes that find them
    device_graph    the graphs of these passes for GPUs
    deployed_model  all of this as one model; graph_hash identifies it
    built_engine    a TensorRT engine that was built for it
    error_curve     the error of smaller halos, where it was measured; tolerance bounds it
    tuning          how fast its tiles and strips were on a machine, where it was measured
    file_names      files of a bundle that others refer to
"""

from exactile.contract.contract import BY_RULES, Contract, Verification
from exactile.contract.deployed_model import DeployedModel, KeptPasses, Level, WholeGraph
from exactile.contract.image import ImageInput, ImageStatistics, StatisticsKind
from exactile.contract.memory_model import BytesForShape, MemoryModel
from exactile.contract.placed_model import POSITION, PlacedModel
from exactile.contract.result import Activation, LabelClass, OutputKind, ResultOutput
from exactile.contract.strip_model import Carry, StripGraph, StripModel, StripRole

__all__ = [
    "BY_RULES",
    "POSITION",
    "Activation",
    "BytesForShape",
    "Carry",
    "Contract",
    "DeployedModel",
    "ImageInput",
    "ImageStatistics",
    "KeptPasses",
    "LabelClass",
    "Level",
    "MemoryModel",
    "OutputKind",
    "PlacedModel",
    "ResultOutput",
    "StatisticsKind",
    "StripGraph",
    "StripModel",
    "StripRole",
    "Verification",
    "WholeGraph",
]
