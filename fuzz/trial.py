"""Run one case, from its recipe to its outcome, in the calling process."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fuzz.bounds import measured
from fuzz.outcome import Outcome
from fuzz.recipe import Kind, Recipe

Found = TypeVar("Found")


def prepare_child() -> None:
    """Let libraries warn of damage; what counts is the outcome."""
    warnings.simplefilter("ignore")
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    logging.getLogger("tifffile").addHandler(logging.NullHandler())


def prepare(kind: Kind, shared: Path) -> None:
    """Make what all cases of a kind start from, once, in the folder that their children share."""
    from fuzz import models

    if kind == "onnx":
        models.prepare_networks(shared)
    elif kind == "contract":
        models.prepare_bundle(shared)


def recipe_of(kind: Kind, seed: int) -> Recipe:
    """Return the recipe that ``seed`` draws."""
    if kind == "tiff":
        from fuzz.tiff_cases import tiff_recipe as draw
    elif kind == "picture":
        from fuzz.picture_cases import picture_recipe as draw
    elif kind == "czi":
        from fuzz.czi_cases import czi_recipe as draw
    elif kind == "dicom":
        from fuzz.dicom_cases import dicom_recipe as draw
    elif kind == "contract":
        from fuzz.contract_cases import contract_recipe as draw
    else:
        from fuzz.onnx_cases import onnx_recipe as draw
    return draw(seed)


def try_recipe(recipe: Recipe, folder: Path) -> Outcome:
    """Make the case in ``folder``, give it to exactile within bounds, and judge what it made of it.

    ``folder`` lies in the one that was given to ``prepare``.
    """
    return _TRIALS[recipe.kind](recipe, folder)


def _within(work: Callable[[], Found]) -> tuple[Outcome, list[Found]]:
    """Run ``work`` within bounds, and return what it found."""
    found: list[Found] = []

    def run() -> Outcome:
        found.append(work())
        return Outcome(verdict="right")

    return measured(run), found


def _costing(outcome: Outcome, bounds: Outcome) -> Outcome:
    """Add the cost to a verdict; beyond the bounds it is a failure in any case."""
    if bounds.verdict == "failure":
        return replace(bounds, detail=f"{bounds.detail}{outcome.detail}")
    return replace(outcome, seconds=bounds.seconds, grown_bytes=bounds.grown_bytes)


def _try_tiff(recipe: Recipe, folder: Path) -> Outcome:
    from fuzz import tiff_verdict
    from fuzz.tiff_cases import tiff_case

    path = folder / tiff_verdict.NAME
    path.write_bytes(tiff_case(recipe))
    bounds, (found,) = _within(lambda: tiff_verdict.read_case(path))
    return bounds if bounds.verdict == "failure" else _costing(tiff_verdict.judge(path, found), bounds)


def _try_picture(recipe: Recipe, folder: Path) -> Outcome:
    from fuzz import picture_verdict
    from fuzz.picture_cases import picture_case

    path = folder / picture_verdict.NAME
    path.write_bytes(picture_case(recipe))
    bounds, (found,) = _within(lambda: picture_verdict.read_case(path))
    return bounds if bounds.verdict == "failure" else _costing(picture_verdict.judge(path, found), bounds)


def _try_czi(recipe: Recipe, folder: Path) -> Outcome:
    from fuzz import czi_verdict
    from fuzz.czi_bases import LEVELS
    from fuzz.czi_cases import czi_case

    path, level = folder / czi_verdict.NAME, LEVELS.get(recipe.base, 0)
    path.write_bytes(czi_case(recipe))
    bounds, (found,) = _within(lambda: czi_verdict.read_case(path, level))
    return bounds if bounds.verdict == "failure" else _costing(czi_verdict.judge(path, found, level), bounds)


def _try_dicom(recipe: Recipe, folder: Path) -> Outcome:
    from fuzz import dicom_verdict
    from fuzz.dicom_cases import dicom_case

    path = folder / dicom_verdict.NAME
    path.write_bytes(dicom_case(recipe))
    bounds, (found,) = _within(lambda: dicom_verdict.read_case(path))
    return bounds if bounds.verdict == "failure" else _costing(dicom_verdict.judge(path, found), bounds)


def _try_contract(recipe: Recipe, folder: Path) -> Outcome:
    from fuzz import contract_verdict
    from fuzz.contract_cases import contract_case

    shared = folder.parent
    wanted = contract_verdict.expected(shared)
    path = contract_verdict.place_case(contract_case(recipe, shared), shared, folder)
    bounds, (outcome,) = _within(lambda: contract_verdict.judge(path, wanted))
    return _costing(outcome, bounds)


def _try_onnx(recipe: Recipe, folder: Path) -> Outcome:
    from fuzz import onnx_verdict
    from fuzz.onnx_cases import onnx_case

    path = folder / onnx_verdict.NAME
    path.write_bytes(onnx_case(recipe, folder.parent))
    bounds, (read,) = _within(lambda: onnx_verdict.read_case(path))
    if isinstance(read, Outcome) or bounds.verdict == "failure":
        return _costing(read if isinstance(read, Outcome) else bounds, bounds)
    geometry, channels = read
    bounds, (run,) = _within(lambda: onnx_verdict.run_case(path, geometry, channels))
    if isinstance(run, Outcome) or bounds.verdict == "failure":
        return _costing(run if isinstance(run, Outcome) else bounds, bounds)
    return _costing(onnx_verdict.judge(path, geometry, *run), bounds)


_TRIALS = {
    "tiff": _try_tiff,
    "picture": _try_picture,
    "czi": _try_czi,
    "dicom": _try_dicom,
    "contract": _try_contract,
    "onnx": _try_onnx,
}
