"""Plans for GPUs: those that fit their memory, and the shapes of built engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exactile.contract import DeployedModel, MemoryModel
from exactile.errors import BudgetError, DeviceMemoryError, PlanError
from exactile.pipeline.device_compute import staging_buffers
from exactile.pipeline.device_ring import LoadBytes
from exactile.plan.border import Border
from exactile.plan.budget import MemoryNeed
from exactile.plan.built import batch_of, built_plans
from exactile.plan.choice import Choice
from exactile.plan.prediction import Plan, predicted_passes
from exactile.plan.strips import StripPlan
from exactile.processors.protocol import DeviceSpace

BACK_OFF = 0.8
"""After a plan that turned out not to fit, the next one may need this fraction of its predicted need."""

INDEXED_ELEMENTS = 1 << 31
"""Most elements of a tensor for ONNX Runtime.

Kernels of its CUDA provider count elements in 32 bits: beyond that they write to wrong places, or leave a part
unwritten, without an error.
"""

Measure = Callable[[Plan], MemoryNeed]


class DevicePlanner:
    """Knows the limits of the GPUs of a session; what turned out not to fit is not planned again.

    ``load`` gives the bytes of a load of so many steps, if it is not that of a result.
    """

    def __init__(
        self, model: DeployedModel, space: DeviceSpace, load: Callable[[Plan, int], LoadBytes] | None = None
    ) -> None:
        self._model = model
        self._load = load or (lambda plan, batch: LoadBytes.of(model.contract, plan, batch))
        self.space = space
        self._refused: list[str] = []
        self._last: DeviceMemoryError | None = None

    def need(self, plan: Plan, need: MemoryNeed) -> MemoryNeed:
        """Complete ``need`` with the pinned and device memory of ``plan``.

        Activations are those that the memory model predicts for ONNX Runtime on a CPU; TensorRT's are known only when
        an engine is opened.
        """
        space = self.space
        load = self._load(plan, batch_of(plan, space.engines))
        loads = -(-len(plan) // load.batch)
        staging = min(loads, staging_buffers(space.devices, space.slots)) * load.input_bytes
        elements = self._largest_tensor(plan, load.batch)
        return replace(
            need,
            device_refusal=_too_large(elements) if elements >= INDEXED_ELEMENTS else "",
            buffer_bytes=staging + space.devices * space.slots * load.pinned_bytes,
            device_bytes=space.slots * load.device_bytes + self._carries(plan) + self._network(plan, load.batch),
            most_device_bytes=space.memory_bytes,
        )

    def choose_built(
        self,
        image: tuple[int, int],
        border: Border,
        budget_bytes: int,
        measure: Measure,
        *,
        plan: str,
        tile: tuple[int, int] | None,
    ) -> Choice:
        """Return the plan that is predicted to be the fastest of those with built engines. Raises PlanError."""
        engines = self.space.engines or ()
        found = [p for p in built_plans(self._model, image, border, engines) if _asked_for(p, plan, tile)]
        fitting = [p for p in found if measure(p).fits(budget_bytes)]
        if not fitting:
            self._raise_nothing_fits(image, found, measure, budget_bytes)
        best = min(fitting, key=self._passes)
        return self._explained(
            Choice(
                plan=best,
                passes=predicted_passes(best),
                reason=f"the fastest of {len(fitting)} for which engines were built",
            )
        )

    def explained(self, choose: Callable[[Measure], Choice], measure: Measure) -> Choice:
        """Return the choice of ``choose``, but prefer a plan that leaves no GPU idle. Raises BudgetError."""

        def suited(plan: Plan) -> MemoryNeed:
            idle = _side_by_side(plan) < self.space.devices
            return replace(measure(plan), most_device_bytes=-1) if idle else measure(plan)

        try:
            try:
                return self._explained(choose(suited if self.space.devices > 1 else measure))
            except BudgetError:
                if self.space.devices == 1:
                    raise
                return self._explained(choose(measure))
        except BudgetError as error:
            if self._last is not None:
                raise BudgetError(f"{error} ({'; '.join(self._refused)})") from self._last
            raise

    def refuse(self, plan: Plan, need: MemoryNeed, error: DeviceMemoryError) -> None:
        """Note that ``plan`` did not fit. Raises ``error`` if there is nothing smaller."""
        height, width = plan.tile_shape
        self._refused.append(f"a {plan.name} of {height} x {width} did not fit the GPU's memory")
        self._last = error
        space = self.space
        if space.engines is None:
            self.space = replace(space, memory_bytes=int(min(space.memory_bytes, need.device_bytes) * BACK_OFF))
            return
        shape = ("body", plan.rows, plan.x.tile) if isinstance(plan, StripPlan) else ("tile", *plan.tile_shape)
        left = tuple(e for e in space.engines if (e.role, e.rows[0], e.columns) != shape)
        if not any(e.role in ("tile", "body") for e in left):
            raise error
        self.space = replace(space, engines=left)

    def _explained(self, choice: Choice) -> Choice:
        return replace(choice, reason="; ".join([choice.reason, *self._refused]))

    def _passes(self, plan: Plan) -> float:
        """Return the predicted time in passes of all GPUs together."""
        devices = self.space.devices
        return predicted_passes(plan) * devices / min(devices, _side_by_side(plan))

    def _carries(self, plan: Plan) -> int:
        if not isinstance(plan, StripPlan):
            return 0
        return 2 * -(-plan.bands // self.space.devices) * plan.strips.carry_bytes(plan.x.tile)

    def _network(self, plan: Plan, batch: int) -> int:
        """Return bytes of weights and activations, as far as they are known before an engine is opened."""
        memory = self._model.contract.memory
        if self.space.engines is not None:
            return memory.weights_bytes
        return max(run.weights_bytes + batch * run.activation_bytes(*shape) for run, shape in self._inferences(plan))

    def _largest_tensor(self, plan: Plan, batch: int) -> int:
        """Return the elements of the largest tensor; 0 for built engines, which are not built for larger ones."""
        if self.space.engines is not None:
            return 0
        return max(batch * run.largest_tensor(*shape) for run, shape in self._inferences(plan))

    def _inferences(self, plan: Plan) -> list[tuple[MemoryModel, tuple[int, int]]]:
        """Return the memory models of the graphs that ``plan`` runs, and the highest shape that each runs at."""
        if not isinstance(plan, StripPlan):
            return [(self._model.contract.memory, plan.tile_shape)]
        return [(plan.strips.graphs[role].memory, (rows, plan.x.tile)) for role, rows in plan.y.highest.items()]

    def _raise_nothing_fits(
        self, image: tuple[int, int], found: list[Plan], measure: Measure, budget_bytes: int
    ) -> None:
        if found:
            least = min(found, key=lambda p: measure(p).needed_bytes)
            raise BudgetError(
                f"a {least.name} of {least.tile_shape[0]}x{least.tile_shape[1]} {measure(least).shortage(budget_bytes)}"
            ) from self._last
        shapes = dict.fromkeys(
            f"{'tiles' if e.role == 'tile' else 'strips'} of {e.rows[0]}x{e.columns}"
            for e in self.space.engines or ()
            if e.role in ("tile", "body")
        )
        raise PlanError(
            f"no engine was built for this request and an image of {image[0]} x {image[1]} pixels; there are engines "
            f"for {', '.join(shapes)}, and smaller images need smaller ones. What to do: exactile convert BUNDLE "
            "--engine ... --tile HxW, or --engine onnxruntime, or --device cpu"
        ) from self._last


def _too_large(elements: int) -> str:
    return (
        f"would have a tensor of {elements:,} elements on the GPU, and kernels of ONNX Runtime index "
        f"{INDEXED_ELEMENTS:,}; use smaller tiles, or strips, or --device cpu"
    )


def _asked_for(plan: Plan, name: str, tile: tuple[int, int] | None) -> bool:
    kind = "strip" if isinstance(plan, StripPlan) else "tile"
    if name == "whole":
        return kind == "tile" and len(plan) == 1
    if name not in {"auto", kind}:
        return False
    shape = (plan.rows, plan.x.tile) if isinstance(plan, StripPlan) else plan.tile_shape
    return tile is None or tile == shape


def _side_by_side(plan: Plan) -> int:
    """Return how many GPUs ``plan`` can keep busy."""
    return plan.bands if isinstance(plan, StripPlan) else len(plan)
