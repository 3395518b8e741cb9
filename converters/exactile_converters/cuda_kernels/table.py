"""The kernels of ONNX Runtime's CUDA provider, as the provider itself lists them.

``kernels.json`` is written by ``python -m tests.cuda_runtime.kernels`` from a wheel of onnxruntime-gpu. An operator has
rows (first version, last version or 0, types by constraint); operators of ONNX Runtime's own domain also have their
inputs and outputs, in constraints or types.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

OWN_DOMAIN = "com.microsoft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel for operators last defined in a version of ``first`` to ``last``, or 0 for ``first`` alone.

    That is how ONNX Runtime reads an open end: a newer definition needs its own registered kernel.
    """

    first: int
    last: int
    types: Mapping[str, frozenset[str]]

    def is_for(self, since_version: int) -> bool:
        return self.first == since_version or self.first < since_version <= self.last

    def takes(self, types: Sequence[tuple[tuple[str, str], str]]) -> bool:
        """Return whether all ``types`` fit, each with its (constraint, parameter); "" is unknown."""
        for names, kind in types:
            allowed = next((self.types[name] for name in names if name in self.types), None)
            if allowed is not None and kind and kind not in allowed:
                return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """``own`` are the constraints of the inputs and outputs of operators in ONNX Runtime's domain."""

    library: str
    kernels: Mapping[str, tuple[Kernel, ...]]
    own: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]

    def of(self, domain: str, op: str) -> tuple[Kernel, ...]:
        return self.kernels.get(f"{domain}.{op}" if domain == OWN_DOMAIN else op, ())


@cache
def kernel_table() -> KernelTable:
    """Return the table of ``kernels.json``."""
    stored = json.loads(resources.files(__package__).joinpath("kernels.json").read_text())
    return KernelTable(
        library=stored["library"],
        kernels={
            name: tuple(
                Kernel(first=first, last=last, types={key: frozenset(kinds.split()) for key, kinds in types.items()})
                for first, last, types in rows
            )
            for name, rows in stored["kernels"].items()
        },
        own={name: (tuple(taken), tuple(given)) for name, (taken, given) in stored["own_operators"].items()},
    )
