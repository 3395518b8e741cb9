"""What the TensorRT adapter calls exists in the real modules, and the stand-in for them offers nothing else.

The adapter was written for what TensorRT 10.3 (JetPack), 11 and RTX have in common; what only some have, it looks for
before it uses it. These tests read the adapter's source, and the real bindings; no TensorRT runs.
"""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import exactile.engines.tensorrt
import exactile.engines.tensorrt_library
from tests.support.engines_on_gpu import SCORES, real_plan
from tests.support.tensorrt_bindings import api_of_10, parameters, real_api
from tests.support.tensorrt_stand_in import HostDevice, TensorRTStandIn

SOURCES = [Path(module.__file__) for module in (exactile.engines.tensorrt, exactile.engines.tensorrt_library)]

HOLDERS = {
    "module": "",
    "library.module": "",
    "self.module": "",
    "self._library.module": "",
    "module.ILogger": "ILogger",
    "module.ILogger.Severity": "ILogger.Severity",
    "severity": "ILogger.Severity",
    "library.module.TensorIOMode": "TensorIOMode",
    "strategies": "DynamicShapesKernelSpecializationStrategy",
    "self._runtime": "Runtime",
    "self._engine": "ICudaEngine",
    "engine": "ICudaEngine",
    "self._context": "IExecutionContext",
    "context": "IExecutionContext",
    "self._settings": "IRuntimeConfig",
    "engine.get_tensor_dtype(name)": "DataType",
}
"""Expressions of the adapter that hold something of TensorRT's, by its class there; "" is the module."""

PROBED = {
    ("ICudaEngine", "device_memory_size"),
    ("ICudaEngine", "device_memory_size_v2"),
    ("ICudaEngine", "create_runtime_config"),
    ("IExecutionContext", "is_stream_capturable"),
    ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"),
    ("DynamicShapesKernelSpecializationStrategy", "EAGER"),
    ("", "DynamicShapesKernelSpecializationStrategy"),
}
"""What the adapter uses only where the module has it, or where it has found what comes with it."""


@dataclass(frozen=True)
class Use:
    """An attribute of something of TensorRT's; ``arguments`` are how many it is called with and their keywords."""

    owner: str
    name: str
    arguments: tuple[int, tuple[str, ...]] | None
    where: str


def uses() -> list[Use]:
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in HOLDERS:
                call = calls.get(id(node))
                arguments = (len(call.args), tuple(key.arg for key in call.keywords)) if call else None
                owner = HOLDERS[ast.unparse(node.value)]
                found.append(Use(owner, node.attr, arguments, f"{path.name}:{node.lineno}"))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                holder, name = node.args[:2]
                if ast.unparse(holder) in HOLDERS and isinstance(name, ast.Constant):
                    found.append(Use(HOLDERS[ast.unparse(holder)], name.value, None, f"{path.name}:{node.lineno}"))
    return found


USES = uses()


def apis() -> list[pytest.param]:
    return [
        pytest.param(lambda: real_api("tensorrt_bindings"), id="TensorRT 11"),
        pytest.param(lambda: real_api("tensorrt_rtx"), id="TensorRT-RTX"),
        pytest.param(api_of_10, id="TensorRT 10.3"),
    ]


def accepts(overloads: list[list[str]], arguments: tuple[int, tuple[str, ...]]) -> bool:
    count, keywords = arguments
    return any(count + len(keywords) <= len(names) and set(keywords) <= set(names[count:]) for names in overloads)


def test_the_adapter_is_read_in_full():
    names = {(use.owner, use.name) for use in USES}
    wanted = {
        ("", "Runtime"),
        ("", "ILogger"),
        ("", "__version__"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "create_execution_context"),
        ("ICudaEngine", "get_tensor_profile_shape"),
        ("IExecutionContext", "set_tensor_address"),
        ("IExecutionContext", "set_input_shape"),
        ("IExecutionContext", "execute_async_v3"),
        ("ILogger.Severity", "INTERNAL_ERROR"),
    }
    assert names >= wanted | PROBED


def test_nothing_of_tensorrt_is_held_by_another_name():
    real = real_api("tensorrt_rtx")
    special = {name for owner in ("ICudaEngine", "IExecutionContext", "Runtime") for name in real[owner]}
    special -= {"name", "engine", "logger", "__init__"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in special:
                assert ast.unparse(node.value) in HOLDERS, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("api", apis())
def test_every_type_of_number_has_a_real_name(api):
    assert set(exactile.engines.tensorrt._DTYPES) <= set(api()["DataType"])


@pytest.mark.parametrize("api", apis())
def test_everything_that_is_not_looked_for_first_exists(api):
    real = api()
    missing = [use for use in USES if (use.owner, use.name) not in PROBED and use.name not in real.get(use.owner, {})]
    assert missing == []


def test_everything_that_is_looked_for_exists_somewhere():
    everywhere = [real_api("tensorrt_bindings"), real_api("tensorrt_rtx"), api_of_10()]
    assert [name for owner, name in PROBED if not any(name in real.get(owner, {}) for real in everywhere)] == []


@pytest.mark.parametrize("api", apis())
def test_every_call_fits_a_real_signature(api):
    real = api()
    called = [use for use in USES if use.arguments is not None and use.name in real.get(use.owner, {})]
    bad = []
    for use in called:
        overloads = real[use.owner][use.name] if use.owner else real[use.name]["__init__"]
        if overloads is None or not accepts(overloads, use.arguments):
            bad.append((use, overloads))
    assert bad == []
    assert len(called) >= 12


def test_a_call_with_too_many_or_misnamed_arguments_would_be_found():
    execute = [["stream_handle"]]
    assert accepts(execute, (1, ()))
    assert accepts(execute, (0, ("stream_handle",)))
    assert not accepts(execute, (2, ()))
    assert not accepts(execute, (0, ("stream",)))


@pytest.mark.parametrize(("backend", "module"), [("tensorrt", "tensorrt_bindings"), ("tensorrt-rtx", "tensorrt_rtx")])
def test_the_stand_in_offers_nothing_that_the_real_module_does_not(backend, module):
    real = real_api(module)
    offered = TensorRTStandIn(HostDevice(), backend=backend).module
    wrong = []
    for owner, name, ours in members(offered):
        theirs = real.get(owner, {}).get(name, "missing")
        if theirs == "missing":
            wrong.append(f"{owner}.{name} does not exist")
        elif ours is not None and not any(ours == overload[: len(ours)] for overload in theirs or []):
            wrong.append(f"{owner}.{name} takes {ours}, not {theirs}")
    assert wrong == []


def members(module: ModuleType) -> list[tuple[str, str, list[str] | None]]:
    """All that the stand-in offers: owner, name, and the parameters of methods."""
    found: list[tuple[str, str, list[str] | None]] = []
    for name, value in vars(module).items():
        if name.startswith("__") and name != "__version__":
            continue
        found.append(("", name, None))
        if isinstance(value, type):
            found += of_class(name, value)
    return found


def of_class(owner: str, cls: type) -> list[tuple[str, str, list[str] | None]]:
    found: list[tuple[str, str, list[str] | None]] = []
    for name in dir(cls):
        value = getattr(cls, name)
        if name.startswith("_") and not (name == "__init__" and inspect.isfunction(value)):
            continue
        if isinstance(value, type):
            found += [(owner, name, None), *of_class(f"{owner}.{name}", value)]
        elif inspect.isfunction(value) and "__members__" not in dir(cls):
            found.append((owner, name, [each for each in inspect.signature(value).parameters if each != "self"]))
        else:
            found.append((owner, name, None))
    return found


def test_a_stand_in_that_offers_more_would_be_found():
    module = TensorRTStandIn(HostDevice()).module
    assert ("IExecutionContext", "execute_async_v3", ["stream_handle"]) in members(module)
    assert ("ICudaEngine", "num_io_tensors", None) in members(module)
    assert ("ILogger.Severity", "ERROR", None) in members(module)
    assert ("Runtime", "__init__", ["logger"]) in members(module)


def test_parameters_are_read_from_docstrings_of_pybind11():
    doc = """f(*args, **kwargs)
Overloaded function.

1. f(self: a.B, name: str, shape: tuple[int, ...]) -> bool

    Text (with brackets), and a list:

2. f(self: a.B, strategy: a.S = <S.STATIC: 0>) -> None
"""
    assert parameters(doc) == [["name", "shape"], ["strategy"]]


REAL_RTX = """
import hashlib, pathlib, sys
from exactile.contract.built_engine import BuiltEngine
from exactile.engines.tensorrt import TensorRTNetwork
from exactile.engines.tensorrt_library import load_tensorrt
from exactile.errors import EngineError
plan = pathlib.Path(sys.argv[1])
content = plan.read_bytes()
built = BuiltEngine(
    backend="tensorrt-rtx", backend_version=load_tensorrt("tensorrt-rtx").version, compute_capabilities=((8, 6),),
    precision="fp32", role="tile", batch=1, rows=(4, 4), columns=5, inputs={}, outputs={}, plan=plan,
    plan_bytes=len(content), plan_sha256=hashlib.sha256(content).hexdigest(),
)
try:
    TensorRTNetwork(built, compute_capability=(8, 6))
except EngineError as error:
    print(type(error).__name__, error)
"""


def real_rtx(plan: Path) -> str:
    """What the adapter says about ``plan`` with the real library, in a process without the emulated driver."""
    pytest.importorskip("tensorrt_rtx")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", REAL_RTX, plan], check=True, capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    return done.stdout


def test_the_real_rtx_says_what_is_wrong_with_a_plan_through_the_adapter(tmp_path):
    plan = tmp_path / "junk.plan"
    plan.write_bytes(b"junk")
    said = real_rtx(plan)
    assert "Error TensorRT failed while loading the tile engine junk.plan: " in said
    assert "readHeader" in said
    assert said.count("\n") == 1


def test_the_real_rtx_without_a_gpu_is_a_device_error(tmp_path):
    plan = tmp_path / "net.plan"
    plan.write_bytes(real_plan(pytest.importorskip("tensorrt_rtx"), SCORES, (8, 6)))
    said = real_rtx(plan)
    assert said.startswith("DeviceError TensorRT failed while loading the tile engine net.plan: ")
    assert "cudaError" in said
