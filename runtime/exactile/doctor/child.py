"""One check in a process of its own: ``python -m exactile.doctor.child CHECK FILE ARGUMENTS``.

What it does and finds is written to FILE, a line of JSON each, as soon as it is known: the process may end any moment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from exactile.doctor.finding import Telling, of_error

CHECKS = {
    "packages": ("exactile.doctor.packages", "check_packages"),
    "cpu": ("exactile.doctor.on_cpu", "check_cpu"),
    "driver": ("exactile.doctor.driver", "check_driver"),
    "providers": ("exactile.doctor.providers", "check_providers"),
    "tensorrt": ("exactile.doctor.tensorrt", "check_tensorrt"),
    "onnxruntime on a GPU": ("exactile.doctor.on_gpu", "check_onnx_runtime"),
    "tensorrt on a GPU": ("exactile.doctor.on_gpu", "check_tensorrt_engine"),
    "bundle": ("exactile.doctor.bundle", "check_bundle"),
}
"""Where each check is; imported by the child alone."""


def main(check: str, told: Path, arguments: Mapping[str, Any]) -> None:
    with told.open("a", encoding="utf-8") as file:

        def tell(line: Mapping[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        telling = Telling(tell)
        try:
            module, name = CHECKS[check]
            work: Callable[[Telling, Mapping[str, Any]], None] = getattr(import_module(module), name)
            work(telling, arguments)
        except Exception as error:  # noqa: BLE001  # a report says it; nothing is raised
            telling.found(of_error(arguments["group"], arguments["name"], error))
        tell({"done": True})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
