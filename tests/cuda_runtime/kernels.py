"""``python -m tests.cuda_runtime.kernels WHEEL``: what the CUDA provider of an unpacked wheel has kernels for.

Writes ``kernels.json`` of ``exactile_converters.cuda_kernels``, as the provider tells on stand-ins for CUDA.
"""

from __future__ import annotations

import collections
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.cuda_runtime.library import ROOT, build, run

TARGET = ROOT / "converters" / "exactile_converters" / "cuda_kernels" / "kernels.json"
PROVIDER, DOMAINS = "CUDAExecutionProvider", ("", "com.microsoft")
OPEN_END = 2147483647

Row = tuple[int, int, dict[str, tuple[str, ...]]]


def listed() -> dict[str, Any]:
    """The kernels as ONNX Runtime tells them; in a process with the real library."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = collections.defaultdict(list)
    for kernel in state.get_all_opkernel_def():
        if kernel.provider == PROVIDER and kernel.domain in DOMAINS:
            first, last = kernel.version_range
            types = {name: tuple(sorted(map(_plain, kinds))) for name, kinds in kernel.type_constraints.items()}
            name = f"{kernel.domain}.{kernel.op_name}" if kernel.domain else kernel.op_name
            found[name].append((first, 0 if last == OPEN_END else last, types))
    own = {
        schema.name: [_formals(schema.inputs), _formals(schema.outputs)]
        for schema in state.get_all_operator_schema()
        if schema.domain == "com.microsoft"
    }
    return {
        "library": f"onnxruntime-gpu {onnxruntime.__version__}",
        "kernels": {name: joined(rows) for name, rows in sorted(found.items())},
        "own_operators": dict(sorted(own.items())),
    }


def joined(rows: list[Row]) -> list[list[Any]]:
    """Rows of the same versions that differ in one constraint become one, with the types of all."""
    done: list[Row] = []
    for first, last, types in sorted(rows, key=repr):
        for index, (other_first, other_last, others) in enumerate(done):
            if (first, last, types.keys()) != (other_first, other_last, others.keys()):
                continue
            differing = [name for name in types if types[name] != others[name]]
            if len(differing) <= 1:
                more = {name: tuple(sorted({*types[name], *others[name]})) for name in differing}
                done[index] = first, last, {**others, **more}
                break
        else:
            done.append((first, last, types))
    return [[first, last, {name: " ".join(kinds) for name, kinds in types.items()}] for first, last, types in done]


def _formals(parameters: Any) -> list[str]:
    """The types, or the constraints of types, of what an operator takes or gives."""
    return [_plain(each.typeStr) for each in parameters]


def _plain(kind: str) -> str:
    return kind.removeprefix("tensor(").removesuffix(")") if kind.startswith("tensor(") else kind


def written(content: dict[str, Any]) -> str:
    """One operator a line."""
    parts = []
    for key, value in content.items():
        if isinstance(value, dict):
            lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items())
            parts.append(f"{json.dumps(key)}: {{\n{lines}\n}}")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def kernels_of(site: Path, libraries: Path) -> str:
    """The text of ``kernels.json`` for the wheel in ``site``."""
    return written(json.loads(run("tests.cuda_runtime.kernels", "--list", site=site, libraries=libraries)))


def main(argument: str) -> None:
    if argument == "--list":
        sys.stdout.write(json.dumps(listed()))
        return
    with tempfile.TemporaryDirectory() as folder:
        build(Path(argument), Path(folder))
        TARGET.write_text(kernels_of(Path(argument), Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1])
