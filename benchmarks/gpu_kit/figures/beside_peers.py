"""Compare exactile with other ways on the same GPU, the same network and image, in turn.

``compute``: an array in host memory to labels in host memory. ``file to file``: reading a JPEG TIFF and writing a TIFF
of labels as well, which peers do with tifffile, in all its threads.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from benchmarks.gpu_kit.networks import model
from benchmarks.gpu_kit.pictures import jpeg_tiff
from benchmarks.gpu_kit.provider import Binding, gpu_session
from benchmarks.gpu_kit.sizes import sizes
from benchmarks.harness.turns import in_turn, median_ratio
from exactile import open_sink, open_source
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

Labels = NDArray[np.uint8]
EXACTILE = "exactile"


def in_turns(network: str, side: int, rounds: int, binding: Binding, folder: Path) -> dict[str, Any]:
    """Return a check: seconds of each way, by exactile's, and the share of labels that differ from exactile's."""
    from benchmarks.gpu_kit.figures.torch_peers import on_device, peers, segment
    from benchmarks.gpu_kit.modules import module

    slide = jpeg_tiff(side, folder)
    image = read(slide)
    corner = image[: sizes().peer_tiles[-1], : sizes().peer_tiles[-1]]
    labels: dict[str, Labels] = {}
    with gpu_session(model(network, folder), binding) as session:
        torch_module = on_device(module(network))
        compute: dict[str, Callable[[], Any]] = {EXACTILE: partial(_keep, labels, EXACTILE, _array, session, image)}
        files: dict[str, Callable[[], Any]] = {EXACTILE: partial(_file, session, slide, folder / "exactile.tif")}
        _array(session, image)
        for peer in peers(sizes().peer_tiles, sizes().peer_halo):
            segment(peer, torch_module, corner)  # loads kernels
            compute[peer.name] = partial(_keep, labels, peer.name, segment, peer, torch_module, image)
            files[peer.name] = partial(_peer_file, partial(segment, peer, torch_module), slide, folder / "peer.tif")
        computing = in_turn(compute, rounds)
        filing = in_turn(files, 1)
    same = np.array_equal(tifffile.imread(folder / "exactile.tif"), labels[EXACTILE])
    rows = [
        {
            "network": network,
            "side": side,
            "way": name,
            "compute s": statistics.median(computing[name]),
            "by exactile, compute": median_ratio(computing[name], computing[EXACTILE]),
            "file to file s": filing[name][0],
            "by exactile, files": filing[name][0] / filing[EXACTILE][0],
            "labels that differ": float(np.mean(labels[name] != labels[EXACTILE])),
        }
        for name in compute
    ]
    return {"passed": same, "network": network, "same labels from file and array": same, "rows": rows}


def read(slide: Path) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = tifffile.imread(slide, maxworkers=len(os.sched_getaffinity(0)))
    return image


def _keep(labels: dict[str, Labels], name: str, way: Callable[..., Labels], *arguments: Any) -> None:
    labels[name] = way(*arguments)


def _array(session: Session, image: NDArray[np.uint8]) -> Labels:
    sink = ArraySink()
    session.segment(ArraySource(image), sink)
    labels: Labels = sink.result
    return labels


def _file(session: Session, slide: Path, target: Path) -> None:
    source = open_source(slide)
    try:
        session.segment(source, open_sink(target, overwrite=True, pyramid=False))
    finally:
        source.close()


def _peer_file(way: Callable[[NDArray[np.uint8]], Labels], slide: Path, target: Path) -> None:
    tifffile.imwrite(
        target,
        way(read(slide)),
        bigtiff=True,
        tile=(512, 512),
        compression="zlib",
        photometric="minisblack",
        maxworkers=len(os.sched_getaffinity(0)),
    )
