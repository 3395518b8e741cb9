"""Step A: the CUDA layer and the pipeline on it, without any engine."""

from __future__ import annotations

from benchmarks.gpu_kit.harness import Check
from benchmarks.gpu_kit.rehearsal import rehearsing

DEVICE, COPY = "benchmarks.gpu_kit.device_checks", "benchmarks.gpu_kit.copy_pipeline"
BINDINGS = ("cuda.bindings", "pycuda")
TOOLS = ("memcheck", "racecheck", "synccheck")


def checks() -> list[Check]:
    """Return the checks, the most important first: whether anything runs at all."""
    small = rehearsing()
    side, tile, mib = (600, 256, 4) if small else (8192, 1024, 256)
    found = [Check(name="environment", function=f"{DEVICE}:environment", seconds=30)]
    for binding in BINDINGS:
        found += [
            Check(
                name=f"labels by a kernel, {binding}",
                function=f"{COPY}:labels",
                arguments={"binding": binding, "side": side // 4, "tile": tile // 2, "batch": 1},
                seconds=40,
            ),
            Check(
                name=f"device tests, {binding}",
                function=f"{DEVICE}:device_tests",
                arguments={"binding": binding},
                seconds=60,
            ),
            Check(
                name=f"bandwidths, {binding}",
                function=f"{DEVICE}:bandwidths",
                arguments={"binding": binding, "mib": mib},
                seconds=20,
            ),
        ]
        found += [
            Check(
                name=f"overlap, kernel of {milliseconds:g} ms, {binding}",
                function=f"{COPY}:overlap",
                arguments={"binding": binding, "side": side, "tile": tile, "milliseconds": milliseconds},
                seconds=20,
            )
            for milliseconds in (4.0, 1.0, 0.0)
        ]
    return [*found, *_once(side, tile, mib)]


def _once(side: int, tile: int, mib: int) -> list[Check]:
    """Return the less important checks, or those for one binding."""
    return [
        Check(
            name="labels by a kernel, batches of 3",
            function=f"{COPY}:labels",
            arguments={"binding": "cuda.bindings", "side": side // 4, "tile": tile // 4, "batch": 3},
            seconds=20,
        ),
        *(
            Check(
                name=f"compute-sanitizer {tool}",
                function=f"{COPY}:sanitized",
                arguments={"tool": tool, "side": 300},
                seconds=40,
            )
            for tool in TOOLS
        ),
        *_by_each_binding("beside torch", "beside_torch", 30),
        *_by_each_binding("pinned memory", "pinned_costs", 20, total_mib=2 * mib),
        Check(name="captured graphs", function=f"{DEVICE}:captured_graphs", arguments={"count": 256}, seconds=20),
        *_by_each_binding("threads", "many_threads", 20, threads=8),
    ]


def _by_each_binding(name: str, function: str, limit_s: float, **arguments: int) -> list[Check]:
    return [
        Check(
            name=f"{name}, {binding}",
            function=f"{DEVICE}:{function}",
            arguments={"binding": binding, **arguments},
            seconds=limit_s,
        )
        for binding in BINDINGS
    ]
