"""Find the engines beside a bundle that were built for it, and say why others there are not used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from exactile.bundle.contract_file import ContractFile, Header
from exactile.bundle.engine_file import (
    ENGINE_FORMAT,
    ENGINE_VERSION,
    ENGINES_FOLDER,
    PLAN_SUFFIX,
    SIDECAR_SUFFIX,
    EngineFile,
    TensorPart,
    model_digest,
)
from exactile.bundle.engine_tensors import differences, engine_tensors, pass_tensors
from exactile.contract import DeployedModel
from exactile.contract.built_engine import BuiltEngine, TensorSpec
from exactile.errors import PlanError

LARGEST_SIDECAR_BYTES = 1 << 20
MOST_FILES = 4096
LONGEST_DETAIL = 300
"""Characters of a foreign text that are passed on."""

Decoded = TypeVar("Decoded")


class UnfitError(Exception):
    """An engine that is not used; the message says why."""


def read_engines(
    folder: Path, file: ContractFile, model: DeployedModel
) -> tuple[tuple[BuiltEngine, ...], tuple[str, ...]]:
    """Return the engines in the bundle ``folder`` that were built for ``model``, and one line for each other file
    there.

    Sizes of engines are checked here, their SHA-256 when they are loaded: they are large.
    """
    place = folder / ENGINES_FOLDER
    if not place.exists() and not place.is_symlink():
        return (), ()
    found, refused = [], []
    try:
        names = _names(folder, place)
    except UnfitError as error:
        return (), (str(error),)
    for name in names:
        if not name.endswith(SIDECAR_SUFFIX):
            continue
        try:
            found.append(_engine(place, name, file, model))
        except UnfitError as error:
            refused.append(f"{name}: {error}")
    return tuple(found), (*refused, *_left_over(names))


def read_sidecar(path: Path) -> EngineFile:
    """Raise UnfitError if it cannot be read, is damaged, or has a newer version."""
    if path.is_symlink():
        raise UnfitError("it is a link; put the file itself there")
    try:
        if path.stat().st_size > LARGEST_SIDECAR_BYTES:
            raise UnfitError(f"it has {path.stat().st_size} bytes, too many for the description of an engine")
        data = path.read_bytes()
    except OSError as error:
        raise UnfitError(f"it cannot be read: {error.strerror}") from error
    header = _decode(data, Header)
    if header.format != ENGINE_FORMAT:
        raise UnfitError(f"its format is {_printable(header.format)!r}, not {ENGINE_FORMAT!r}")
    if header.version > ENGINE_VERSION:
        raise UnfitError(
            f"it has version {header.version} and this exactile reads up to {ENGINE_VERSION}: update exactile, or "
            "build the engine with this version"
        )
    return _decode(data, EngineFile)


def is_intact(engine: BuiltEngine) -> bool:
    """Return whether the engine's file is the one that was built, byte for byte."""
    try:
        with engine.plan.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == engine.plan_sha256
    except OSError:
        return False


def _names(folder: Path, place: Path) -> list[str]:
    if place.resolve().parent != folder.resolve():
        raise UnfitError(f"{ENGINES_FOLDER} is a link that leads out of the bundle, to {place.resolve()}")
    try:
        names = sorted(path.name for path in place.iterdir())
    except OSError as error:
        raise UnfitError(f"{ENGINES_FOLDER} cannot be read: {error.strerror}") from error
    if len(names) > MOST_FILES:
        raise UnfitError(f"{ENGINES_FOLDER} holds {len(names)} files, more than {MOST_FILES}; remove old engines")
    return names


def _left_over(names: list[str]) -> Iterator[str]:
    """Yield files that belong to no engine."""
    sidecars = {name.removesuffix(SIDECAR_SUFFIX) for name in names if name.endswith(SIDECAR_SUFFIX)}
    for name in names:
        if name.endswith(SIDECAR_SUFFIX) or (name.endswith(PLAN_SUFFIX) and name.removesuffix(PLAN_SUFFIX) in sidecars):
            continue
        part = name.startswith(".") and name.endswith(".part")
        yield f"{_printable(name)}: " + (
            "left over from an interrupted build; it can be removed" if part else "it belongs to no engine"
        )


def _engine(place: Path, name: str, file: ContractFile, model: DeployedModel) -> BuiltEngine:
    sidecar = read_sidecar(place / name)
    if sidecar.model_sha256 != model_digest(file):
        raise UnfitError(
            "it was built for another model, or for this one before it was converted again; build it again"
        )
    if sidecar.plan != name.removesuffix(SIDECAR_SUFFIX) + PLAN_SUFFIX:
        raise UnfitError(f"it describes {sidecar.plan}, not the engine beside it")
    _check_plan(place / sidecar.plan, sidecar.plan_bytes)
    _check_tensors(sidecar, model)
    return BuiltEngine(
        backend=sidecar.backend,
        backend_version=sidecar.backend_version,
        compute_capabilities=sidecar.compute_capabilities,
        precision=sidecar.precision,
        role=sidecar.role,
        batch=sidecar.batch,
        rows=sidecar.rows,
        columns=sidecar.columns,
        inputs=_specs(sidecar.inputs),
        outputs=_specs(sidecar.outputs),
        plan=place / sidecar.plan,
        plan_bytes=sidecar.plan_bytes,
        plan_sha256=sidecar.plan_sha256,
        level=sidecar.level,
    )


def _check_plan(plan: Path, size: int) -> None:
    if plan.is_symlink():
        raise UnfitError(f"{plan.name} is a link; put the file itself there")
    try:
        found = plan.stat().st_size
    except FileNotFoundError:
        raise UnfitError(f"{plan.name} is missing; build it again") from None
    except OSError as error:
        raise UnfitError(f"{plan.name} cannot be read: {error.strerror}") from error
    if found != size:
        raise UnfitError(f"{plan.name} has {found} bytes where {size} were written; build it again")


def _check_tensors(sidecar: EngineFile, model: DeployedModel) -> None:
    try:
        if sidecar.level is None:
            inputs, outputs = engine_tensors(
                model, sidecar.role, batch=sidecar.batch, rows=sidecar.rows, columns=sidecar.columns
            )
        else:
            _check_pass(sidecar)
            inputs, outputs = pass_tensors(model, sidecar.level, (sidecar.rows[0], sidecar.columns))
    except (ValueError, PlanError) as error:
        raise UnfitError(str(error)) from error
    found = _specs(sidecar.inputs), _specs(sidecar.outputs)
    for expected, specs in zip((inputs, outputs), found, strict=True):
        for difference in differences(expected, specs):
            raise UnfitError(_printable(difference))


def _check_pass(sidecar: EngineFile) -> None:
    if sidecar.role != "tile" or sidecar.batch != 1 or sidecar.rows[0] != sidecar.rows[1]:
        raise UnfitError("statistics are found in tiles of one shape, one by one")


def _specs(parts: dict[str, TensorPart]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(shape=part.shape, dtype=part.dtype) for name, part in parts.items()}


def _decode(data: bytes, kind: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnfitError(f"it is damaged: {_printable(str(error))}; build the engine again") from error


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:LONGEST_DETAIL])
