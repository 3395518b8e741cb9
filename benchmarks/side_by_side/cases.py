"""Which networks, images and contenders, and how many rounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.side_by_side.subject import PAPER_HALO, STRIDE

GIB = 1 << 30
Family = Literal["whole", "naive", "exactile", "peer"]
"""``whole`` and ``naive`` together set the floor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A contender as it is entered: a module of ``contenders``, its options, what else the table says about it.

    ``main`` ones also run where time is dear; ``quick`` ones in ``make bench``.
    """

    title: str
    module: str
    family: Family
    options: dict[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ("onnxruntime",)
    main: bool = False
    quick: bool = False

    @property
    def library(self) -> str:
        """What computes the network."""
        return "torch" if self.options.get("library") == "torch" else "ORT"

    @property
    def ours(self) -> bool:
        return self.family == "exactile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network of so many features over a square image. ``whole`` is False where one pass takes too much memory."""

    features: int
    side: int
    rounds: int
    entries: tuple[Entry, ...]
    scores: bool = True
    whole: bool = True

    @property
    def key(self) -> str:
        return f"{self.features}-{self.side}"

    @property
    def name(self) -> str:
        return f"U-Net, {self.features} features, {self.side} x {self.side}"


def entries(features: int) -> tuple[Entry, ...]:
    """Return all contenders, in the order of the table. Ours within 1 GiB for 16 features, 2 for 32, 4 for 64."""
    memory_bytes = max(GIB, features * GIB // 16)
    return (*_plain(), *_ours(memory_bytes), *_peers())


def _plain() -> Iterable[Entry]:
    yield Entry(title="one whole pass", module="whole", family="whole", main=True, quick=True)
    yield Entry(title="naive tiles 512", module="cropped", family="naive", options={"tile": 512}, main=True, quick=True)
    yield Entry(title="naive tiles 1024", module="cropped", family="naive", options={"tile": 1024})
    for tile in (512, 1024):
        options = {"tile": tile, "halo": PAPER_HALO}
        title = f"the paper's tiles {tile}, halo {PAPER_HALO}"
        yield Entry(title=title, module="cropped", family="peer", options=options, main=tile == 1024, quick=tile == 512)
    torch = {"library": "torch"}
    packages = ("torch",)
    yield Entry(title="one whole pass, torch", module="whole", family="whole", options=torch, packages=packages)
    yield Entry(
        title="naive tiles 512, torch", module="cropped", family="naive", options=torch | {"tile": 512},
        packages=packages,
    )  # fmt: skip


def _ours(memory_bytes: int) -> Iterable[Entry]:
    packages = ("exactile", "onnxruntime")
    for plan in ("tile", "strip"):
        yield Entry(
            title=f"exactile, {plan}s", module="exactile_session", family="exactile", packages=packages, main=True,
            quick=True, options={"plan": plan, "memory_bytes": memory_bytes},
        )  # fmt: skip


def _peers() -> Iterable[Entry]:
    monai = ("monai", "onnxruntime")
    default = {"window": 512, "overlap": 0.25, "mode": "constant"}
    gaussian = {"window": 512, "overlap": 0.5, "mode": "gaussian"}
    most = {"window": 1024, "overlap": 2 * PAPER_HALO / 1024, "halo": PAPER_HALO}
    yield _peer("MONAI, overlap 0.25 (its default)", "monai_inferer", default, monai, quick=True)
    yield _peer("MONAI, Gaussian, overlap 0.5", "monai_inferer", gaussian, monai, main=True, quick=True)
    yield _peer("MONAI, windows 1024, weights 0 in the halo", "monai_inferer", most, monai)
    torch = {"library": "torch"}
    yield _peer("MONAI, overlap 0.25 (its default), torch", "monai_inferer", default | torch, ("monai", "torch"))
    yield _peer("MONAI, Gaussian, overlap 0.5, torch", "monai_inferer", gaussian | torch, ("monai", "torch"))
    tiler = ("tiler", "onnxruntime")
    hann = {"tile": 512, "overlap": 256, "window": "hann"}
    overlap = {"tile": 1024, "overlap": 2 * PAPER_HALO, "window": "overlap-tile"}
    exact = overlap | {"window": "exact", "halo": PAPER_HALO}
    yield _peer("tiler, hann, overlap 0.5", "tiler_merger", hann, tiler)
    yield _peer("tiler, overlap-tile 1024", "tiler_merger", overlap, tiler, quick=True)
    yield _peer("tiler, tiles 1024, weights 0 in the halo", "tiler_merger", exact, tiler)
    patchly = ("patchly", "onnxruntime")
    average = {"patch": 512, "step": 256, "weights": "avg"}
    edge = {"patch": 1024, "step": 1024 - 2 * PAPER_HALO, "weights": "exact", "halo": PAPER_HALO}
    yield _peer("patchly, average, step 0.5", "patchly_aggregator", average, patchly)
    yield _peer("patchly, Gaussian, step 0.5", "patchly_aggregator", average | {"weights": "gaussian"}, patchly)
    yield _peer("patchly, patches 1024, weights 0 in the halo", "patchly_aggregator", edge, patchly)
    block = {"block": 1024, "halo": PAPER_HALO}
    core = ("bioimageio.core", "onnxruntime")
    yield _peer("bioimageio.core, blocks 1024, halo 96", "bioimageio_core", block, core, quick=True)
    halo = {"block": 1024 - 2 * PAPER_HALO, "halo": PAPER_HALO, "library": "torch"}
    yield _peer("torch_em, blocks 832 + halo 96, torch", "torch_em_halo", halo, ("torch_em", "torch"))
    tiles = {"tile": 1024, "stride": STRIDE, "halo": PAPER_HALO}
    yield _peer("CSBDeep, tiles of about 1024, halo 96", "csbdeep_tiles", tiles, ("csbdeep", "onnxruntime"))


def _peer(
    title: str,
    module: str,
    options: dict[str, Any],
    packages: tuple[str, ...],
    *,
    main: bool = False,
    quick: bool = False,
) -> Entry:
    return Entry(
        title=title, module=module, family="peer", options=options, packages=packages, main=main, quick=quick
    )  # fmt: skip


def cases(*, quick: bool) -> tuple[Case, ...]:
    """Return the cases; they take minutes, or most of an hour."""
    if quick:
        return (Case(features=16, side=2048, rounds=3, entries=tuple(e for e in entries(16) if e.quick)),)
    return (
        Case(features=16, side=2048, rounds=3, entries=entries(16)),
        Case(features=32, side=2048, rounds=3, entries=_main(32), scores=False),
        Case(
            features=64, side=2048, rounds=2, entries=tuple(e for e in _main(64) if not e.title.startswith("MONAI")),
            scores=False,
        ),
        Case(
            features=16, side=8192, rounds=2, entries=tuple(e for e in _main(16) if e.family != "whole"), scores=False,
            whole=False,
        ),
    )  # fmt: skip


def _main(features: int) -> tuple[Entry, ...]:
    return tuple(entry for entry in entries(features) if entry.main)
