"""``segment``: what ``exactile run`` does, in one call, into an array; for scripts and notebooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exactile.contract import Activation, DeployedModel, ImageStatistics, OutputKind, StatisticsKind
from exactile.errors import BudgetError, OptionError
from exactile.passes.fixed import FixedStatistics, read_statistics
from exactile.plan.border import Border
from exactile.plan.budget import parse_bytes
from exactile.planning import PlanName
from exactile.request.damage import warn_of_damage
from exactile.request.meaning import tell_doubt, tell_unproven, warn_of_nan
from exactile.request.model_choice import Deploy, ModelChoice, why_not_run_before
from exactile.request.normalization import NormalizationNumbers
from exactile.request.onnx_models import Fits, when_whole
from exactile.request.progress import Bar
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.alpha import leave_out_alpha
from exactile.sources.open import open_source
from exactile.sources.protocol import Source

Numbers = float | Sequence[float]


def segment(
    model: str | os.PathLike[str] | DeployedModel,
    image: str | os.PathLike[str] | NDArray[Any] | object,
    *,
    output: OutputKind | None = None,
    threshold: float | None = None,
    activation: Activation | None = None,
    output_name: str | None = None,
    scale: Numbers | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    normalize: Literal["fixed", "zscore", "percentile"] = "fixed",
    plan: PlanName = "auto",
    tile: tuple[int, int] | None = None,
    border: Border = "model",
    memory: int | str | None = None,
    threads: int | None = None,
    device: str = "auto",
    engine: str = "auto",
    statistics: str | os.PathLike[str] | FixedStatistics | None = None,
    tolerance: str | None = None,
    verify: bool = True,
    trust_probe: bool = False,
    cache: bool = True,
    progress: bool = True,
    **image_options: Any,
) -> NDArray[Any]:
    """Segment ``image`` and return the result: labels (H, W), or maps (C, H, W) for other ``output``.

    ``model`` is an ONNX file or one with ONNX in it (.czann, .czseg, a pixel classifier of QuPath), whose declared
    normalisation and output are the defaults; a bundle (folder or its ``contract.json``), or a deployed model;
    ``image`` is anything that ``open_source`` accepts, and ``image_options`` are its options (``axes``, ``channels``,
    ...). Other options are those of ``exactile run`` under the same names: the network gets ``(sample / scale - mean) /
    std``, each one number or one for each channel; ``memory``, in bytes or as ``"2GiB"``, bounds the resident memory of
    the whole process, the result included; ``tile`` is (height, width); ``statistics``, a file of ``exactile measure``
    or its content, replace the image's own; with a ``tolerance``, ``"1e-4"`` or ``"labels:1e-5"``, the result is not
    exact, and the error that was found is printed on stderr. Deployed models and bundles have their own ``output`` and
    normalisation, and accept no others.

    With ``trust_probe``, an ONNX file that no rule proves to run exactly in tiles does so with the halo that runs of it
    show, where tiles then equal one pass at small sizes; it is not proven, and a warning says so.
    With ``cache``, the deployed form of an ONNX file is kept in the user's cache folder, and found there by later
    calls. With ``progress``, a bar is drawn in terminals and notebooks. Notes and warnings go to stderr, as for the
    command. Raises the errors that the command reports: ``ExactileError``.
    """
    fixed = read_statistics(statistics) if isinstance(statistics, str | os.PathLike) else statistics
    memory_bytes = parse_bytes(memory) if isinstance(memory, str) else memory
    name = model.contract.model_name if isinstance(model, DeployedModel) else model
    choice = ModelChoice(
        path=Path(name),
        normalization=NormalizationNumbers(
            scale=_numbers(scale), mean=_numbers(mean), std=_numbers(std), statistics=_statistics(normalize)
        ),
        output=output,
        threshold=threshold,
        activation=activation,
        output_name=output_name,
        strips=plan in ("auto", "strip"),
        whole=when_whole(plan, tiles=tile is not None, fixed=statistics is not None),
        unverified=why_not_run_before(plan, no_verify=not verify, fixed=statistics is not None),
        memory_bytes=memory_bytes,
        progress=progress,
        cache=cache,
        trust_probe=trust_probe,
    )
    deploy = choice.of(model) if isinstance(model, DeployedModel) else choice.load()
    source = open_source(image, **image_options)
    try:

        def opened(model: DeployedModel) -> Session:
            return Session(model, memory_bytes=memory_bytes, threads=threads, device=device, engine=engine)

        session = opened(_deployed(deploy, source, lambda model: _fits(opened(model), source, border)))
        try:
            return _run(
                session,
                source,
                _name(image),
                plan=plan,
                tile=tile,
                border=border,
                statistics=fixed,
                tolerance=tolerance,
                progress=progress,
            )
        finally:
            session.close()
    finally:
        source.close()


def _deployed(deploy: Deploy, source: Source, fits: Fits) -> DeployedModel:
    model = deploy(str(source.dtype), (source.height, source.width), fits)
    tell_doubt(model.contract.result.doubt)
    tell_unproven(model.contract.model_name, model.contract.verification)
    leave_out_alpha(source, model.contract.image.channels)
    return model


def _fits(opened: Session, source: Source, border: Border) -> bool:
    """Return whether there is a plan within the memory."""
    with closing(opened) as session:
        try:
            session.plan(source, ArraySink(), border=border)
        except BudgetError:
            return False
        return True


def _run(
    session: Session,
    source: Source,
    name: str,
    *,
    plan: PlanName,
    tile: tuple[int, int] | None,
    border: Border,
    statistics: FixedStatistics | None,
    tolerance: str | None,
    progress: bool,
) -> NDArray[Any]:
    sink = ArraySink()
    with Bar(name, enabled=progress) as bar:
        summary = session.segment(
            source,
            sink,
            plan=plan,
            tile=tile,
            border=border,
            statistics=statistics,
            tolerance=tolerance,
            planned=bar.start,
            progress=bar.advance,
            measuring=bar.measure,
        )
    if summary.tolerance is not None:
        sys.stderr.write(f"note: {name}: exact: {summary.tolerance.sentence}\n")
    for note in summary.notes:
        sys.stderr.write(f"note: {name}: {note}\n")
    warn_of_damage(summary.damage, name)
    warn_of_nan(summary.nan, session.contract.result, name)
    return sink.result


def _name(image: object) -> str:
    """Return the name of ``image`` for people."""
    return Path(image).name if isinstance(image, str | os.PathLike) else "the array"


def _numbers(given: Numbers | None) -> tuple[float, ...] | None:
    return None if given is None else tuple(np.atleast_1d(np.asarray(given, np.float64)).tolist())


def _statistics(normalize: str) -> ImageStatistics | None:
    kinds: dict[str, StatisticsKind | None] = {"fixed": None, "zscore": "zscore", "percentile": "percentile"}
    if normalize not in kinds:
        raise OptionError(f"normalize must be one of {', '.join(kinds)}, got {normalize!r}")
    kind = kinds[normalize]
    return ImageStatistics(kind=kind) if kind is not None else None
