"""Open networks on a CPU: ONNX Runtime, or OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.engines.onnx_runtime import OnnxRuntimeEngine, load_library
from exactile.engines.openvino import OpenVinoEngine, OpenVinoStripEngine
from exactile.engines.openvino_library import WAY_OUT, check_precision, load_openvino
from exactile.engines.protocol import Engine
from exactile.engines.strip_engine import StripEngine
from exactile.errors import EngineError
from exactile.machine.architecture import architecture
from exactile.plan.engine_memory import ONNX_RUNTIME_MEMORY, EngineMemory
from exactile.plan.prediction import Plan
from exactile.plan.strips import StripPlan
from exactile.plan.tiles import TilePlan

Constants = Mapping[str, NDArray[Any]]

OPENVINO_MEMORY = EngineMemory(opening_bytes=48 << 20, weights_factor=1.5, activations_factor=1.1)
"""Measured by ``python -m benchmarks.memory_model --engine openvino``, as peaks of processes that had loaded OpenVINO.

An engine takes 25 to 45 MiB for code that is compiled or used for the first time, and up to three copies of the weights
(aligned, with batch normalisations folded in, packed for the kernels), which is 1.3 times what ONNX Runtime keeps. Its
activations took 0.5 to 0.85 of ONNX Runtime's: it fuses more. The prediction was 1.2 to 2.6 times the measured peak,
for networks of 0.1 to 31 million weights.
"""


class HostFamily(Protocol):
    """One kind of engine on a CPU. ``identity`` is what determines the last digits, as plain data."""

    name: str
    """Name for people, with its version: ``onnxruntime 1.32.0``."""
    identity: Mapping[str, Any]
    memory: EngineMemory
    no_statistics: str
    """Why it cannot run passes for statistics of the whole image; empty if it can."""

    def suited(self, model: DeployedModel) -> DeployedModel:
        """Return ``model`` without strips that the engine does not compute as it computes one pass."""

    def open_tiles(
        self, model: DeployedModel, plan: TilePlan, *, activation_bytes: int, constants: Constants, threads: int | None
    ) -> Engine:
        """Return the engine for tiles of ``plan``. Raises EngineError."""

    def open_strips(
        self,
        model: DeployedModel,
        plan: StripPlan,
        *,
        bands: range,
        activation_bytes: int,
        constants: Constants,
        threads: int | None,
    ) -> Engine:
        """Return the engine for strips of these ``bands`` of ``plan``. Raises EngineError."""


class OnnxRuntimeFamily:
    """Implements ``HostFamily``. Raises EngineError where onnxruntime is missing.

    ``activation_bytes`` are those of all engines that are open side by side: they share one region.
    """

    memory: EngineMemory = ONNX_RUNTIME_MEMORY
    no_statistics = ""

    def __init__(self) -> None:
        version = str(load_library().__version__)
        self.name = f"onnxruntime {version}"
        self.identity: Mapping[str, Any] = {"onnxruntime": version}

    def suited(self, model: DeployedModel) -> DeployedModel:
        """Return ``model`` without strips that hold the arithmetic of another architecture."""
        return model.on(architecture())

    def open_tiles(
        self, model: DeployedModel, plan: TilePlan, *, activation_bytes: int, constants: Constants, threads: int | None
    ) -> OnnxRuntimeEngine:
        model = model.at(plan.geometry)
        contract = model.contract
        sizes = {
            name: size
            for one in model.reads
            for name, size in zip(one.names, one.sizes_at(plan.tile_shape), strict=True)
        }
        return OnnxRuntimeEngine(
            model.graph,
            dims=sizes,
            input_name=contract.image.name,
            output_name=contract.result.name,
            tile_shape=plan.tile_shape,
            threads=threads,
            activation_bytes=activation_bytes,
            weights=model.weights,
            claims=model.claims,
            constants=constants,
        )

    def open_strips(
        self,
        model: DeployedModel,
        plan: StripPlan,
        *,
        bands: range,
        activation_bytes: int,
        constants: Constants,
        threads: int | None,
    ) -> Engine:
        model = model.at(plan.geometry)
        return StripEngine(
            plan.strips,
            model.contract,
            band_width=plan.x.tile,
            bands=bands,
            threads=threads,
            activation_bytes=activation_bytes,
            claims=model.claims,
            constants=constants,
        )


class OpenVinoFamily:
    """Implements ``HostFamily`` in ``precision``: f32, or bf16 on CPUs that have it.

    64-bit integers are computed in 32 bits, and float64 in float32. So graphs that need the position of a tile, and
    those that find statistics of the whole image, are refused. Raises EngineError if openvino is missing, OptionError.
    """

    memory: EngineMemory = OPENVINO_MEMORY
    no_statistics = (
        "OpenVINO computes in float32, and passes over the image need float64. What to do: "
        f"{WAY_OUT}, or give statistics that were found before (--statistics)"
    )

    def __init__(self, precision: str = "") -> None:
        library = load_openvino()
        self._precision = check_precision(library, precision)
        self.name = f"openvino {library.version}"
        self.identity: Mapping[str, Any] = {"openvino": library.version}
        if self._precision != "f32":
            self.name += " in bfloat16, not the float32 labels"
            self.identity = {**self.identity, "precision": self._precision}

    def suited(self, model: DeployedModel) -> DeployedModel:
        """Return ``model`` without strips of fewer bits, which hold the arithmetic of ONNX Runtime."""
        if self._precision == "bf16" and model.strips is not None:
            return model.without_strips("in bfloat16, tiles were compared with one pass, strips were not")
        if model.strips is not None and model.strips.processor:
            return model.without_strips("of fewer bits, its strips hold the arithmetic of ONNX Runtime, not OpenVINO's")
        return model

    def open_tiles(
        self,
        model: DeployedModel,
        plan: TilePlan,
        *,
        activation_bytes: int,  # noqa: ARG002 -- the seam's signature
        constants: Constants,
        threads: int | None,
    ) -> Engine:
        _check_not_placed(model, plan)
        contract = model.contract
        return OpenVinoEngine(
            model.graph,
            input_name=contract.image.name,
            output_name=contract.result.name,
            tile_shape=plan.tile_shape,
            channels=contract.image.channels,
            threads=threads,
            precision=self._precision,
            weights=model.weights,
            claims=model.claims,
            constants=constants,
        )

    def open_strips(
        self,
        model: DeployedModel,
        plan: StripPlan,
        *,
        bands: range,
        activation_bytes: int,  # noqa: ARG002 -- the seam's signature
        constants: Constants,
        threads: int | None,
    ) -> Engine:
        _check_not_placed(model, plan)
        return OpenVinoStripEngine(
            plan.strips,
            model.contract,
            band_width=plan.x.tile,
            bands=bands,
            threads=threads,
            precision=self._precision,
            claims=model.claims,
            constants=constants,
        )


def _check_not_placed(model: DeployedModel, plan: Plan) -> None:
    """Raise EngineError if graphs need the position of a tile."""
    if plan.placed:
        height, width = plan.image_shape
        raise EngineError(
            f"operators of {model.contract.model_name} depend on the position in images of {height} x {width} pixels, "
            f"which OpenVINO computes in 32-bit integers. What to do: {WAY_OUT}"
        )
