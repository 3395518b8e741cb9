"""Shared parts of the benchmarks.

::

    machine.py   what a figure was measured on
    turns.py     ways of doing the same take turns; ratios to the fastest of a round
    worker.py    work in its own process: its peak memory, its interpreter, its versions
    record.py    tables as JSON and as Markdown
    plot.py      pictures beside them
    part.py      the command line of one part
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as exactile does: peers run without ONNX Runtime's uploads, too
