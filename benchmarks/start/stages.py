"""``exactile run`` in parts: ``python -m benchmarks.start.stages BEGUN ARGUMENT ...`` prints their seconds as JSON.

``BEGUN`` is the ``time.time()`` right before the process was started.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from typing import Any

STARTED = time.time()


def main() -> None:
    import_module("exactile.cli.run")  # as the command does when it is named
    from exactile.cli.main import app
    from exactile.request.model_choice import ModelChoice

    imported = time.time()
    model_s = 0.0

    def timed(work: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal model_s
            begin = time.time()
            result = work(*arguments)
            model_s += time.time() - begin
            return result

        return call

    load = ModelChoice.load
    ModelChoice.load = lambda choice: timed(timed(load)(choice))  # type: ignore[method-assign]
    app(["run", *sys.argv[2:]], standalone_mode=False)
    ended = time.time()
    begun = float(sys.argv[1])
    stages = {"python": STARTED - begun, "imports": imported - STARTED, "model": model_s}
    print(json.dumps({**stages, "image": ended - imported - model_s}))


if __name__ == "__main__":
    main()
