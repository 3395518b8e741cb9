"""Step B: is what the GPU computes with ONNX Runtime right, in every plan, and does a run end well whatever happens?"""

from __future__ import annotations

from benchmarks.gpu_kit.harness import Check
from benchmarks.gpu_kit.network_names import FLOATING, IN_PASSES, INTEGER, TRAINED

ROOM = "benchmarks.gpu_kit.correctness"
PYCUDA, BINDINGS = "pycuda", "cuda.bindings"
NETWORKS = FLOATING[1:]


def checks() -> list[Check]:
    """Return the checks, the most important first: a step that runs out of time leaves out the rest."""
    return [
        *(_plans(binding, [TRAINED]) for binding in (BINDINGS, PYCUDA)),
        _check("doctor", "command_line:doctor", 40, seconds=30),
        Check(
            name="networks",
            function="benchmarks.gpu_kit.networks:make_all",
            arguments={"names": [*NETWORKS, IN_PASSES, *INTEGER], "outputs": ["raw", "labels"]},
            seconds=60,
        ),
        *(_plans(PYCUDA, [name]) for name in NETWORKS),
        _plans(PYCUDA, INTEGER),
        _plans(PYCUDA, [IN_PASSES]),
        _check("seams", "seams:other_tiles", 40, networks=["U-Net 16", "FC-DenseNet-56", *INTEGER], binding=PYCUDA),
        _check("operators", "operators:alone", 40, binding=PYCUDA),
        _check("command line", "command_line:run", 30),
        _check("killed, tiles", "ending_early:killed", 30, network="U-Net 16", plan="tile", binding=PYCUDA),
        _check("memory runs out", "memory:crowded", 30, network="U-Net 16", binding=PYCUDA),
        _check("half precision", "precision:fp16", 30, networks=[TRAINED, "U-Net 64"], binding=PYCUDA),
        _check(
            "memory as predicted",
            "memory:against_prediction",
            40,
            networks=["U-Net 64", "FC-DenseNet-56"],
            binding=PYCUDA,
        ),
        _plans(BINDINGS, ["U-Net 32", "FC-DenseNet-56"]),
        _plans(BINDINGS, INTEGER),
        _check("killed, strips", "ending_early:killed", 30, network="U-Net 16", plan="strip", binding=BINDINGS),
    ]


def _plans(binding: str, networks: list[str] | tuple[str, ...]) -> Check:
    name = networks[0] if len(networks) == 1 else f"{len(networks)} networks, {networks[0]} first"
    return _check(f"{name}, {binding}", "plans:against_cpu", 40, networks=list(networks), binding=binding)


def _check(name: str, function: str, limit_s: float, **arguments: object) -> Check:
    keep = ("doctor.json",) if name == "doctor" else ("command-trace.json",) if name == "command line" else ()
    return Check(name=name, function=f"{ROOM}.{function}", arguments=arguments, seconds=limit_s, keep=keep)
