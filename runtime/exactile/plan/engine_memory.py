"""The memory of engines on a CPU, relative to the memory model in a contract, which is that of ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass

ACTIVATION_MARGIN = 1.03
"""The memory model's predictions lie within this factor of what was measured (benchmarks/memory_model.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """The memory of one engine: ``opening_bytes``, and multiples of the contract's bytes of weights and
    of activations.
    """

    opening_bytes: int = 0
    weights_factor: float = 1.0
    activations_factor: float = ACTIVATION_MARGIN

    def weights(self, weights_bytes: int) -> int:
        """Return the bytes that stay as long as the engine is open, or are used while it is opened."""
        return self.opening_bytes + int(weights_bytes * self.weights_factor)

    def activations(self, activation_bytes: int) -> int:
        """Return the further bytes of a run."""
        return int(activation_bytes * self.activations_factor)


ONNX_RUNTIME_MEMORY = EngineMemory()
