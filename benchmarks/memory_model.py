"""Compare predicted and measured peak memory of an engine in a fresh process.

``python -m benchmarks.memory_model [--quick] [--all] [--engine openvino]`` deploys networks of several families and
runs each tile shape in its own process (``memory_run.py``). Both figures are beyond what a process has that imported
the engine and read the graph, and without the arrays for tile and result. ``measured / predicted`` must not exceed 1.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.part import run_part
from benchmarks.harness.record import Record, Table
from benchmarks.harness.worker import run_worker
from exactile.engines.host_families import OPENVINO_MEMORY
from exactile.plan.engine_memory import ONNX_RUNTIME_MEMORY

MIB = 1 << 20
COLUMNS = (
    "network", "tile", "weights MiB|.0f", "activations MiB|.0f", "predicted MiB|.0f", "measured MiB|.0f",
    "predicted / measured|.2f",
)  # fmt: skip
MEMORY = {"onnxruntime": ONNX_RUNTIME_MEMORY, "openvino": OPENVINO_MEMORY}
PARTS = {"onnxruntime": "memory_model", "openvino": "memory_openvino"}
FAMILIES = 4
"""Networks of a quick run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    build: Callable[[], Any]  # a torch module with 3 channels in
    stride: int
    tiles: tuple[tuple[int, int], ...]


def cases(*, quick: bool) -> Iterator[Case]:
    from models.fc_densenet import FCDenseNet, fc_densenet
    from models.resnet_unet import ResNetUNet
    from models.segnet import SegNet
    from models.unet import UNet

    squares = ((256, 256), (512, 512), (1024, 1024)) if quick else ((256, 256), (512, 512), (1024, 1024), (2048, 2048))
    for features in (8, 16) if quick else (8, 16, 64):
        for depth in (3,) if quick else (2, 3, 4):
            for up in ("transpose2", "bilinear"):
                yield Case(
                    name=f"U-Net {features} features, depth {depth}, {up}",
                    build=lambda f=features, d=depth, u=up: UNet(3, 4, f, d, up=u),
                    stride=2**depth,
                    tiles=squares if features < 64 else ((256, 256), (640, 640), (1024, 1024)),
                )
    yield Case(
        name="U-Net 16, depth 4, transpose3",
        build=lambda: UNet(3, 4, 16, 4, up="transpose3"),
        stride=16,
        tiles=((736, 736), (128, 8192), (1600, 480)),
    )
    yield Case(
        name="U-Net 20, depth 3, nearest",
        build=lambda: UNet(3, 4, 20, 3, up="nearest"),
        stride=8,
        tiles=((512, 512), (136, 2000)),
    )
    yield Case(
        name="FC-DenseNet small, growth 16",
        build=lambda: FCDenseNet(3, 4, layers=(4, 5, 4), growth=16),
        stride=4,
        tiles=((256, 256), (512, 512)),
    )
    yield Case(name="FC-DenseNet-56", build=lambda: fc_densenet(56, 3, 4), stride=32, tiles=((256, 256), (512, 512)))
    yield Case(
        name="ResNet-18 U-Net", build=lambda: ResNetUNet(3, 4, features=64), stride=32, tiles=((256, 256), (1024, 1024))
    )
    yield Case(name="SegNet 32", build=lambda: SegNet(3, 4, features=32), stride=32, tiles=((256, 256), (768, 768)))


def deploy_case(case: Case) -> Any:
    import onnx

    from exactile_converters.deploy import deploy
    from exactile_converters.prepare.from_onnx import prepare_network
    from exactile_converters.torch_export import export_onnx

    buffer = io.BytesIO()
    export_onnx(case.build(), buffer, 3, stride=case.stride)
    network = prepare_network(onnx.load_from_string(buffer.getvalue()), name=case.name)
    return deploy(network, image_dtype="uint8")


def measure(
    model: Any, graph: Path, tile: tuple[int, int], *, runs: int, threads: int | None, engine: str = "onnxruntime"
) -> int:
    """Return peak bytes beyond the base of a fresh process that opens the graph and runs it ``runs`` times."""
    contract = model.contract
    request = {
        "graph": str(graph),
        "names": (contract.image.name, contract.result.name),
        "tile": tile,
        "activations": contract.memory.activation_bytes(*tile),
        "runs": runs,
        "threads": threads,
        "engine": engine,
    }
    return run_worker("benchmarks.memory_run", request)


def compare(options: argparse.Namespace) -> Iterator[Record]:
    table, ratios = Table(title="Peak memory, predicted and measured", columns=COLUMNS), []
    with tempfile.TemporaryDirectory() as folder:
        for case in islice(cases(quick=not options.all), FAMILIES if options.quick else None):
            model = deploy_case(case)
            path = Path(folder) / "graph.onnx"
            path.write_bytes(model.graph)
            memory = model.contract.memory
            for tile in case.tiles:
                activations = memory.activation_bytes(*tile)
                predicted = MEMORY[options.engine].weights(memory.weights_bytes) + activations
                measured = measure(model, path, tile, runs=options.runs, threads=options.threads, engine=options.engine)
                ratios.append(predicted / measured)
                sizes = (size / MIB for size in (memory.weights_bytes, activations, predicted, measured))
                table.add(case.name, f"{tile[0]} x {tile[1]}", *sizes, ratios[-1])
                print(f"{case.name}, {tile}: {ratios[-1]:.2f}", file=sys.stderr)
    remarks = f"Predicted / measured: {min(ratios):.2f} to {max(ratios):.2f}, median {np.median(ratios):.2f}."
    yield Record(part=PARTS[options.engine], title="The memory model", tables=[table], remarks=remarks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="more networks and larger tiles")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--engine", choices=MEMORY, default="onnxruntime")
    run_part(compare, parser)


if __name__ == "__main__":
    main()
