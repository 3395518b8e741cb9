"""A machine with an emulated GPU, or a broken one, for the processes in which ``exactile doctor`` makes its checks.

``prepare`` puts a ``sitecustomize`` on the path of child processes, which loads what this module offers before anything
else is imported there. What the machine is like is in an environment variable, as JSON: see ``install``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.support.folders import ROOT

VARIABLE = "EXACTILE_TEST_DOCTOR"
SITE = """import sys
if "exactile.doctor.child" in sys.orig_argv:
    from tests.support.doctor_stand_ins import install
    install()
"""
SMALL = {"IMAGE_PX": 256, "TILE_PX": 128, "STRIP_ROWS": 32}


def prepare(monkeypatch, folder: Path, **machine) -> None:
    """From here on child processes run on ``machine``."""
    (folder / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    monkeypatch.setenv(VARIABLE, json.dumps(machine))


def install() -> None:
    """The machine, by keys:

    ``gpus``: how many are emulated (none: the machine's own driver, which is none); ``onnxruntime``: "cuda" for the
    stand-in of its provider; ``tensorrt``: whether there is a stand-in of it; ``wrong``: what of them computes wrong
    labels; ``durations``: of operations; ``crash``, ``hang``, ``exit``, ``raise``: the check in which that happens.
    """
    machine = json.loads(os.environ[VARIABLE])
    check = sys.orig_argv[sys.orig_argv.index("exactile.doctor.child") + 1]
    sys.modules["tensorrt_rtx"] = None
    sys.modules["tensorrt"] = None
    _misbehave(machine, check)
    from exactile.doctor import small_network

    for name, value in SMALL.items():
        setattr(small_network, name, value)
    if not machine.get("gpus"):
        return
    from tests.emulation.driver import load

    emulation = load()
    emulation.reset(devices=machine["gpus"], durations=machine.get("durations"))
    if machine.get("onnxruntime") == "cuda" and check in ("packages", "providers", "onnxruntime on a GPU", "bundle"):
        from tests.support.onnx_runtime_cuda_stand_in import OnnxRuntimeCudaStandIn

        stand_in = OnnxRuntimeCudaStandIn(_gpu(emulation, wrong="onnxruntime" in machine.get("wrong", ())))
        sys.modules["onnxruntime"] = stand_in.module
    if machine.get("tensorrt") and check in ("tensorrt", "tensorrt on a GPU", "bundle"):
        from tests.support.tensorrt_stand_in import TensorRTStandIn

        gpu = _gpu(emulation, wrong="tensorrt" in machine.get("wrong", ()))
        sys.modules["tensorrt"] = TensorRTStandIn(gpu, scratch_bytes=4096).module
        if check == "tensorrt on a GPU":
            from exactile.doctor import on_gpu

            on_gpu.with_small_engines = with_small_engines


def with_small_engines(folder, backend, precision, _capability):
    """As ``exactile.doctor.converter.with_small_engines``, by the stand-in."""
    from exactile.doctor.small_network import open_small

    models = {}
    for name in ("labels", "scores"):
        home = folder / name
        home.mkdir()
        model = open_small(name).model
        engines = [replace(engine, precision=precision) for engine in built_engines(model, home, backend)]
        models[name] = replace(model, engines=tuple(engines))
    return models


def built_engines(model, folder, backend):
    """For the tiles and strips of the test image."""
    from exactile.geometry import round_up
    from exactile_converters.device.form import strip_form, tile_form
    from tests.support import tensorrt_stand_in

    rows, width, stride = SMALL["STRIP_ROWS"], SMALL["IMAGE_PX"], model.contract.geometry.y.stride
    first, least = round_up(model.strips.startup_rows, rows), model.strips.least_last_rows
    yield from (
        tensorrt_stand_in.build(
            form.model,
            folder,
            backend=backend,
            role=form.role,
            rows=form.rows,
            columns=form.columns,
            outputs={name: spec.shape for name, spec in form.outputs.items()},
        )
        for form in (
            tile_form(model, (SMALL["TILE_PX"], SMALL["TILE_PX"])),
            strip_form(model, "first", (first, first), width),
            strip_form(model, "body", (rows, rows), width),
            strip_form(model, "last", (least, least + rows - stride), width),
        )
    )


def _gpu(emulation, *, wrong: bool):
    from tests.support.tensorrt_stand_in import EmulatedGpu

    class WrongGpu(EmulatedGpu):
        """One byte in the middle of the first output is another."""

        def enqueue(self, stream, work, reads, writes):
            def work_wrongly():
                work()
                address = writes[0][0] + writes[0][1] // 2
                ctypes.memset(address, ctypes.string_at(address, 1)[0] ^ 1, 1)

            return super().enqueue(stream, work_wrongly, reads, writes)

    return WrongGpu(emulation) if wrong else EmulatedGpu(emulation)


def _misbehave(machine: dict, check: str) -> None:
    """Crash, hang, exit or raise as soon as the check itself is imported."""
    from exactile.doctor.checks import CHECKS

    def crash(*_):
        os.kill(os.getpid(), signal.SIGSEGV)

    def hang(*_):
        time.sleep(600)

    def leave(*_):
        print("terminate called after throwing an instance of 'cudaError'", file=sys.stderr)  # noqa: T201
        os._exit(3)

    def fail(*_):
        raise RuntimeError(f"no such thing in {Path.home()}/secret/file")

    acts = {"crash": crash, "hang": hang, "exit": leave, "raise": fail}
    for name, act in acts.items():
        if machine.get(name) == check:
            sys.modules["exactile.doctor.misbehaving"] = type(sys)("exactile.doctor.misbehaving")
            sys.modules["exactile.doctor.misbehaving"].check = lambda telling, _arguments, act=act: (
                telling.doing("using the driver"),
                act(),
            )
            CHECKS[check] = ("exactile.doctor.misbehaving", "check")
