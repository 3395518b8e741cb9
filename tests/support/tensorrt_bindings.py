"""What the real TensorRT modules offer: members of their classes, and the parameters of their methods.

The bindings of TensorRT 11 are installed without the libraries that they need; stub libraries that export the nine
functions it links to let it be imported. TensorRT-RTX is installed in whole. What TensorRT 10.3 offers (JetPack's) was
written down once, by ``python -m tests.support.tensorrt_bindings FOLDER_OF_BINDINGS 10``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

RECORD_OF_10 = Path(__file__).parent / "tensorrt_10_3_api.json"
RECORDED = ("Runtime", "ICudaEngine", "IExecutionContext", "ILogger", "ILogger.Severity", "TensorIOMode", "DataType")

Api = dict[str, dict[str, list[list[str]] | None]]
"""By class ("" for the module): each member's overloads as parameter names without self, None for what is no method."""

STUB = "".join(
    f"void* {name}() {{ return nullptr; }}\n"
    for name in (
        "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
        "createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getBuilderPluginRegistry getPluginRegistry "
        "getNvOnnxParserVersion initLibNvInferPlugins"
    ).split()
)

DUMP = r"""
import importlib, json, sys

def members(owner):
    found = {}
    for name in dir(owner):
        if not name.startswith("_") or name in ("__init__", "__version__"):
            value = getattr(owner, name)
            found[name] = (value.__doc__ or "") if callable(value) and not isinstance(value, type) else None
    return found

module = importlib.import_module(sys.argv[1])
classes = {"": members(module)}
def add(prefix, owner):
    for name, value in vars(owner).items():
        if isinstance(value, type) and not name.startswith("_"):
            classes[prefix + name] = members(value)
            if not prefix:
                add(name + ".", value)
add("", module)
print(json.dumps(classes))
"""

_SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\((?P<parameters>.*)\)(?: -> .*)?$", re.MULTILINE)


@cache
def real_api(module: str) -> Api:
    """Of ``tensorrt_bindings`` or ``tensorrt_rtx``. Skips the test where it is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        if module == "tensorrt_bindings":
            build_stubs(Path(folder), "11")
        return _parsed(_dump(module, Path(folder), {}))


@cache
def api_of_10() -> Api:
    """Of TensorRT 10.3, as far as it was written down."""
    return _read(json.loads(RECORD_OF_10.read_text()))


def build_stubs(folder: Path, major: str) -> None:
    """Libraries that TensorRT's bindings can be imported against, and nothing more."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++ to build stub libraries with")
    source = folder / "stub.cpp"
    source.write_text(f'extern "C" {{\n{STUB}}}\n')
    first = folder / f"libnvinfer.so.{major}"
    for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        library = folder / f"lib{name}.so.{major}"
        soname = f"-Wl,-soname,{library.name}"
        subprocess.run([compiler, "-shared", "-fPIC", soname, "-o", library, source], check=True)
    assert first.exists()


def _dump(module: str, libraries: Path, more: dict[str, str]) -> dict[str, dict[str, str | None]]:
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)} | more
    done = subprocess.run(
        [sys.executable, "-c", DUMP, module], env=environment, capture_output=True, text=True, check=False
    )
    if "No module named" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _parsed(dump: dict[str, dict[str, str | None]]) -> Api:
    return {
        owner: {name: None if doc is None else parameters(doc) for name, doc in members.items()}
        for owner, members in dump.items()
    }


def parameters(doc: str) -> list[list[str]]:
    """Parameter names of each overload in a docstring of pybind11, self left out."""
    overloads = []
    for found in _SIGNATURE.finditer(doc):
        text = found["parameters"]
        if text == "*args, **kwargs":
            continue
        names = [part.split(":")[0].split("=")[0].strip() for part in _split(text)]
        overloads.append([name for name in names if name not in ("self", "")])
    return overloads


def _split(text: str) -> list[str]:
    """At the commas that are in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(<{") - (character in "])>}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _read(record: Any) -> Api:
    return {owner: dict(members) for owner, members in record.items()}


def main() -> None:
    """Write down what an older TensorRT offers, of the classes that the adapter uses."""
    bindings, major = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        build_stubs(Path(folder), major)
        api = _parsed(_dump("tensorrt_bindings", Path(folder), {"PYTHONPATH": bindings}))
    kept = {owner: api[owner] for owner in RECORDED}
    kept[""] = {
        name: api[""][name]
        for name in (*RECORDED, "__version__", "ExecutionContextAllocationStrategy")
        if name in api[""]
    }
    RECORD_OF_10.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
