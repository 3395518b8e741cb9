"""``python -m benchmarks.gpu_kit.child REQUEST``: run one check and write what it found.

REQUEST is JSON: function, arguments, folder, file for the answer.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.gpu_kit.rehearsal import prepare_process


def main(request: str) -> int:
    """Return the process's exit status: 1 where the check raised."""
    function, arguments, folder, answer = json.loads(request)
    try:
        prepare_process()
        found: dict[str, Any] = named(function)(**arguments, folder=Path(folder))
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is what the step records
        traceback.print_exc()
        found = {"passed": False, "error": f"{type(error).__name__}: {error}"[:2000]}
        Path(answer).write_text(json.dumps(found))
        return 1
    Path(answer).write_text(json.dumps(found, default=plain))
    return 0


def named(function: str) -> Any:
    """Return the function for ``package.module:name``."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)


def plain(value: Any) -> Any:
    """Convert a number or an array of numpy, or a path, to a JSON value."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return value.name
    raise TypeError(f"a check returned a {type(value).__name__}, which JSON does not have")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
