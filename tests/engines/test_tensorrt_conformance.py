"""What builds engines calls nothing that TensorRT 10, 11 and RTX do not all have, unless it looks for it first.

Twice: the builder's source is read, and a real TensorRT-RTX build is recorded call by call. Both are held against the
real modules: the bindings of TensorRT 11 on stub libraries, TensorRT-RTX, and what the bindings of TensorRT 10.3
offered, written down by ``python -m tests.engines.test_tensorrt_conformance FOLDER_OF_BINDINGS 10``.
"""

from __future__ import annotations

import ast
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exactile.engines.tensorrt_library import LogLines, TensorRTLibrary, load_tensorrt
from exactile_converters.deploy import deploy
from exactile_converters.device.form import strip_form
from exactile_converters.prepare.from_onnx import load_network
from exactile_converters.tensorrt_engine import capability, monitor, plan, timing_cache
from exactile_converters.tensorrt_engine.monitor import SilentWatcher
from exactile_converters.tensorrt_engine.plan import PlanSettings, build_plan
from exactile_converters.tensorrt_engine.timing_cache import keep_timing_cache, use_timing_cache
from tests.support.folders import TESTS
from tests.support.nets import onnx_file
from tests.support.tensorrt_bindings import Api, _dump, _parsed, build_stubs, real_api

SOURCES = [Path(module.__file__) for module in (plan, monitor, capability, timing_cache)]
RECORD_OF_10 = TESTS / "support" / "tensorrt_10_3_builder_api.json"
RECORDED = (
    "Builder IBuilderConfig INetworkDefinition ITensor DataType OnnxParser ParserError IOptimizationProfile "
    "ITimingCache IProgressMonitor BuilderFlag MemoryPoolType NetworkDefinitionCreationFlag"
).split()

HOLDERS = {
    "module": "",
    "self._library.module": "",
    "module.BuilderFlag": "BuilderFlag",
    "module.MemoryPoolType": "MemoryPoolType",
    "module.NetworkDefinitionCreationFlag": "NetworkDefinitionCreationFlag",
    "module.ComputeCapability": "ComputeCapability",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "tensor": "ITensor",
    "tensor.dtype": "DataType",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
}
"""Expressions of the builder that hold something of TensorRT's, by its class there; "" is the module."""

OF_RTX = {
    ("", "ComputeCapability"),
    ("ComputeCapability", "__members__"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}
"""Used with the backend tensorrt-rtx alone."""

PROBED = {
    ("ParserError", "node_name"),
    ("ParserError", "node_operator"),
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
}
"""Looked for before they are used."""

OF_TENSORRT = {("IBuilderConfig", "get_timing_cache"), ("IBuilderConfig", "create_timing_cache")}
"""Used with the backend tensorrt alone; RTX has them and says that they do nothing."""

MODULE_DATA = {"__version__"}
SUBCLASSED = {"IProgressMonitor": ("phase_start", "step_complete", "phase_finish")}


@dataclass(frozen=True, order=True)
class Use:
    """An attribute of something of TensorRT's, and how many arguments it is called with."""

    owner: str
    name: str
    arguments: int | None = None
    keywords: tuple[str, ...] = ()
    where: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.owner, self.name


def uses(source: str, name: str) -> list[Use]:
    """What a source uses of TensorRT, by the names in ``HOLDERS``."""
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    caught = {handler.name for handler in ast.walk(tree) if isinstance(handler, ast.ExceptHandler)}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        holder = ast.unparse(node.value)
        if holder not in HOLDERS or (holder in caught and node.attr == "strerror"):
            continue
        call = calls.get(id(node))
        arguments = len(call.args) if call else None
        keywords = tuple(key.arg or "**" for key in call.keywords) if call else ()
        found.append(Use(HOLDERS[holder], node.attr, arguments, keywords, f"{name}:{node.lineno}"))
    return found


@cache
def used() -> tuple[Use, ...]:
    return tuple(use for path in SOURCES for use in uses(path.read_text(), path.name))


@cache
def api_of_10() -> Api:
    return dict(json.loads(RECORD_OF_10.read_text()))


APIS = {
    "TensorRT 11": lambda: real_api("tensorrt_bindings"),
    "TensorRT-RTX": lambda: real_api("tensorrt_rtx"),
    "TensorRT 10.3": api_of_10,
}


def complaints(found: Iterable[Use], api: Api, *, rtx: bool) -> list[str]:
    """What of ``found`` a module with this ``api`` does not have, or takes otherwise."""
    bad = []
    for use in found:
        if (of_rtx(use) and not rtx) or (use.key in OF_TENSORRT and rtx) or use.name == "__members__":
            continue
        members = api.get(use.owner, {})
        if use.name not in members:
            if use.key not in PROBED:
                bad.append(f"{use.where}: {use.owner}.{use.name} does not exist")
        elif use.arguments is not None and not takes(overloads(use, api), use):
            bad.append(f"{use.where}: {use.owner}.{use.name} takes {overloads(use, api)}")
    return bad


def of_rtx(use: Use) -> bool:
    return use.key in OF_RTX or use.owner == "ComputeCapability"


def overloads(use: Use, api: Api) -> list[list[str]] | None:
    if use.owner:
        return api[use.owner][use.name]
    return api.get(use.name, {}).get("__init__")


def takes(signatures: list[list[str]] | None, use: Use) -> bool:
    count = use.arguments or 0
    return any(
        count + len(use.keywords) <= len(names) and set(use.keywords) <= set(names[count:])
        for names in signatures or ()
    )


@pytest.mark.parametrize("version", APIS)
def test_what_the_builder_uses_exists_with_these_parameters(version):
    assert complaints(used(), APIS[version](), rtx=version == "TensorRT-RTX") == []


def test_the_builder_is_read_in_full():
    keys = {use.key for use in used()}
    assert keys >= {
        ("", "Builder"),
        ("", "OnnxParser"),
        ("", "IProgressMonitor"),
        ("Builder", "create_network"),
        ("Builder", "build_serialized_network"),
        ("OnnxParser", "parse"),
        ("OnnxParser", "parse_from_file"),
        ("IBuilderConfig", "progress_monitor"),
        ("IBuilderConfig", "set_timing_cache"),
        ("IOptimizationProfile", "set_shape"),
        ("ITimingCache", "serialize"),
        ("INetworkDefinition", "get_output"),
        ("MemoryPoolType", "WORKSPACE"),
        *OF_RTX,
    }


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("config.set_flag(module.BuilderFlag.FP16)", "BuilderFlag.FP16 does not exist"),
        ("builder.platform_has_fast_fp16", "Builder.platform_has_fast_fp16 does not exist"),
        ("builder.build_engine(network, config)", "Builder.build_engine does not exist"),
        ("config.max_workspace_size", "IBuilderConfig.max_workspace_size does not exist"),
        ("builder.create_network()", None),
        ("builder.create_network(1, 2)", "Builder.create_network takes [['flags']]"),
        ("parser.parse(model=data)", None),
        ("parser.parse(graph=data)", "OnnxParser.parse takes [['model', 'path']]"),
        ("profile.set_shape(name, least, most)", None),
        ("module.Builder(logger, 1)", ".Builder takes [['logger']]"),
    ],
)
def test_a_planted_call_that_tensorrt_11_does_not_have_is_found(call, complaint):
    found = complaints(uses(call, "planted"), real_api("tensorrt_bindings"), rtx=False)
    assert [text.removeprefix("planted:1: ") for text in found] == ([complaint] if complaint else [])


@pytest.mark.parametrize("version", APIS)
def test_methods_that_tensorrt_calls_are_those_that_it_knows(version):
    known = APIS[version]()["IProgressMonitor"]
    tree = ast.parse(Path(monitor.__file__).read_text())
    (ours,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "Monitor")
    defined = {
        node.name: [argument.arg for argument in node.args.args][1:]
        for node in ours.body
        if isinstance(node, ast.FunctionDef) and node.name != "__init__"
    }
    assert set(defined) == set(SUBCLASSED["IProgressMonitor"])
    for name, parameters in defined.items():
        assert known[name] == [parameters]


class Recorded:
    """Something of TensorRT's; what is asked of it is written down, by its class there."""

    def __init__(self, value: Any, owner: str, log: list[Use]) -> None:
        self.__dict__.update(_value=value, _owner=owner, _log=log)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._value, name)
        if isinstance(value, type) and name in SUBCLASSED:
            self._log.append(Use(self._owner, name))
            return value
        if callable(value) and not hasattr(value, "__members__"):
            return self._method(name, value)
        self._log.append(Use(self._owner, name))
        return wrapped(value, self._log)

    def __setattr__(self, name: str, value: Any) -> None:
        self._log.append(Use(self._owner, name))
        setattr(self._value, name, bare(value))

    def _method(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._log.append(Use(self._owner, name, len(arguments), tuple(keywords)))
            given = {key: bare(value) for key, value in keywords.items()}
            return wrapped(method(*map(bare, arguments), **given), self._log)

        return call


def wrapped(value: Any, log: list[Use]) -> Any:
    kind = type(value)
    if kind.__module__.startswith("tensorrt") and kind.__name__ in HOLDERS.values():
        if hasattr(kind, "__members__") and kind.__name__ != "DataType":
            return value
        return Recorded(value, kind.__name__, log)
    if isinstance(value, type) and hasattr(value, "__members__"):
        return Recorded(value, value.__name__, log)
    return value


def bare(value: Any) -> Any:
    return value._value if isinstance(value, Recorded) else value


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Use, ...]:
    """All calls of a build with a profile, a workspace, a level and several GPUs; and of one that fails."""
    trt = pytest.importorskip("tensorrt_rtx")
    folder = tmp_path_factory.mktemp("recorded")
    model = deploy(load_network(onnx_file(folder, "unet_d1")), image_dtype="uint8")
    form = strip_form(model, "last", (2, 32), 32)
    log: list[Use] = []
    real = load_tensorrt("tensorrt-rtx")
    library = TensorRTLibrary(
        backend="tensorrt-rtx", module=Recorded(trt, "", log), logger=real.logger, lines=real.lines
    )
    settings = PlanSettings(
        precision="fp32",
        compute_capabilities=capability.resolve(library, ((8, 6), (8, 9))),
        workspace_bytes=1 << 30,
        optimization_level=2,
    )
    build_plan(library, model, form, settings, SilentWatcher())
    build_plan(library, model, form, replace(settings, precision="tf32"), SilentWatcher())
    spoiled = form.model.__class__()
    spoiled.CopyFrom(form.model)
    spoiled.graph.node[3].op_type = "Shine"
    with pytest.raises(plan.EngineBuildError):
        build_plan(library, model, replace(form, model=spoiled), settings, SilentWatcher())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        time_a_build(trt, real, folder / "cache", log)
    return tuple(dict.fromkeys(log))


def time_a_build(trt: ModuleType, real: TensorRTLibrary, path: Path, log: list[Use]) -> None:
    """With a timing cache, as TensorRT has it."""
    config = trt.Builder(real.logger).create_builder_config()
    use_timing_cache(real, Recorded(config, "IBuilderConfig", log), path, print)
    keep_timing_cache(Recorded(config, "IBuilderConfig", log), path)
    assert path.stat().st_size > 0


@pytest.mark.parametrize("version", APIS)
def test_a_recorded_build_made_no_call_that_a_version_does_not_have(recorded, version):
    assert complaints(recorded, APIS[version](), rtx=version == "TensorRT-RTX") == []
    assert len(recorded) > 30


def test_nothing_was_called_that_was_not_read_in_the_source(recorded):
    """So a new call cannot hide behind a name that the reader of the source does not know."""
    read = {use.key for use in used()} | {("IBuilderConfig", "__class__")}
    by_name = PROBED | {("ComputeCapability", "SM86"), ("ComputeCapability", "SM89")}
    assert {use.key for use in recorded} - by_name <= read


def test_a_recorded_call_that_does_not_exist_would_be_found():
    log: list[Use] = []
    Recorded([1], "Builder", log).index(1)
    assert complaints(log, real_api("tensorrt_bindings"), rtx=False) == [": Builder.index does not exist"]


def test_lines_are_collected_by_one_logger():
    """TensorRT keeps the first logger of a process, so builder and runtime share it."""
    library = load_tensorrt("tensorrt-rtx") if "tensorrt_rtx" in sys.modules else pytest.skip("not loaded")
    assert plan.load_library("tensorrt-rtx") is library
    assert isinstance(library.lines, LogLines)


def main() -> None:
    """Write down what an older TensorRT offers, of the classes that the builder uses."""
    bindings, major = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        build_stubs(Path(folder), major)
        api = _parsed(_dump("tensorrt_bindings", Path(folder), {"PYTHONPATH": bindings}))
    kept: Api = {owner: api[owner] for owner in RECORDED if owner in api}
    kept[""] = {name: api[""][name] for name in (*RECORDED, *MODULE_DATA) if name in api[""]}
    RECORD_OF_10.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
