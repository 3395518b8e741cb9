"""Sessions on the GPU with ONNX Runtime; in a rehearsal its CPU provider runs in the emulated streams."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu_kit.rehearsal import rehearsing
from exactile.contract import DeployedModel
from exactile.cuda.choice import VARIABLE
from exactile.session import Session

Binding = Literal["pycuda", "cuda.bindings"]
DEVICE = "cuda:0"


@contextmanager
def gpu_session(model: DeployedModel, binding: Binding = "pycuda", **options: Any) -> Iterator[Session]:
    """Yield a session on the first GPU and ``binding``, closed afterwards; ``options`` as those of ``Session``."""
    stand_in_for_cuda()
    os.environ[VARIABLE] = binding
    session = Session(model, device=DEVICE, engine="onnxruntime", **options)
    try:
        yield session
    finally:
        session.close()


def stand_in_for_cuda() -> None:
    """In a rehearsal, before anything imports onnxruntime: its CUDA provider computes on the CPU. Else nothing."""
    if rehearsing():
        _stand_in()


@cache
def _stand_in() -> None:
    import onnxruntime

    from tests.emulation.driver import load
    from tests.support.onnx_runtime_cuda_stand_in import OnnxRuntimeCudaStandIn
    from tests.support.tensorrt_stand_in import EmulatedGpu

    stand_in = OnnxRuntimeCudaStandIn(EmulatedGpu(load()), arena_bytes=4096, root=Path("/nowhere"))
    stand_in.sessions = _Forgets()
    stand_in.module.__path__ = onnxruntime.__path__  # its packages stay what they are
    sys.modules["onnxruntime"] = stand_in.module


class _Forgets(list[Any]):
    """Holds no session alive, as the real module does not."""

    def append(self, _item: Any) -> None: ...
