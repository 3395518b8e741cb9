"""One case, from its recipe to its outcome, in the process that calls."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path

from fuzz.harness import measured
from fuzz.outcome import Outcome
from fuzz.recipe import Kind, Recipe


def prepare_child() -> None:
    """Libraries may warn of damage; what counts is the outcome."""
    warnings.simplefilter("ignore")
    logging.getLogger("tifffile").addHandler(logging.NullHandler())


def recipe_of(kind: Kind, seed: int) -> Recipe:
    """The recipe that ``seed`` draws."""
    if kind == "tiff":
        from fuzz.tiff_cases import tiff_recipe

        return tiff_recipe(seed)
    raise NotImplementedError(kind)


def try_recipe(recipe: Recipe, folder: Path) -> Outcome:
    """Make the case in ``folder``, give it to exactile within bounds, and judge what it made of it."""
    return _TRIALS[recipe.kind](recipe, folder)


def _try_tiff(recipe: Recipe, folder: Path) -> Outcome:
    from fuzz import tiff_verdict
    from fuzz.tiff_cases import tiff_case

    path = folder / tiff_verdict.NAME
    path.write_bytes(tiff_case(recipe))
    found: list = []

    def read() -> Outcome:
        found.append(tiff_verdict.read_case(path))
        return Outcome(verdict="right")

    within = measured(read)
    if within.verdict == "failure":
        return within
    judged = tiff_verdict.judge(path, found[0])
    return replace(judged, seconds=within.seconds, grown_bytes=within.grown_bytes)


_TRIALS = {"tiff": _try_tiff}
