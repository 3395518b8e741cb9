"""Open the folder of a bundle as a model, or refuse it and say what is wrong."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from exactile.bundle.contract_file import FORMAT, VERSION, ContractFile, FilePart, Header
from exactile.bundle.engine_files import read_engines
from exactile.bundle.kept_passes import keeping_from
from exactile.bundle.levels import levels_from, whole_from
from exactile.bundle.pass_parts import KeptPassPart, LevelPart
from exactile.bundle.translation import (
    ROLES,
    claims_of,
    contract_from,
    layout_claims,
    other_strips_from,
    placed_from,
    strips_from,
)
from exactile.contract import DeployedModel
from exactile.contract.file_names import CONTRACT_NAME, WEIGHTS_NAME
from exactile.contract.graph_hash import graph_hash
from exactile.errors import BundleError
from exactile.tolerance.curve_file import read_curve
from exactile.tuning.tuning_file import read_tuning

LARGEST_CONTRACT_BYTES = 64 << 20
LONGEST_DETAIL = 300
"""Characters of a foreign message that are passed on."""

Decoded = TypeVar("Decoded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle: every file is what the contract says.

    ``sample_image`` (H, W, C) and ``sample_result`` ((H, W) or (C, H, W)) are the model's input and output at
    conversion.
    """

    path: Path
    file: ContractFile
    model: DeployedModel
    sample_image: NDArray[Any]
    sample_result: NDArray[Any]


def open_bundle(path: str | Path, *, error_curve: bool = True, tuning: bool = True) -> Bundle:
    """Read the bundle in the folder ``path``, and check the size and SHA-256 of each of its files.

    Engines beside it that do not fit are left out and listed in ``model.engines_refused``. ``error_curve=False`` leaves
    out the error of smaller halos, ``tuning=False`` the speed on some machine: both may be measured again.

    Raises BundleError: no bundle, a newer version, a damaged contract, a missing or changed file, a link that leads out
    of the folder, an error curve or a tuning that is damaged or belongs to another model.
    """
    folder = Path(path)
    file = _read_contract(folder)
    contents = {name: _read_file(folder, name, part) for name, part in file.files.items()}
    for name in _needed(file):
        if name not in contents:
            raise BundleError(f"{folder}: {CONTRACT_NAME} uses {name} and does not list it under files; convert again")
    weights = _weights(folder, file, contents.get(WEIGHTS_NAME, b""))
    layout = layout_claims(
        file.weights, file.strips, file.other_strips, file.placed, file.levels, file.keeping, file.whole
    )
    try:
        contract = contract_from(file)
        levels = levels_from(file, contents, weights, layout)
        keeping = keeping_from(file, contents, weights, layout, contract, levels)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise BundleError(f"{folder}: what {CONTRACT_NAME} says contradicts itself: {error}") from error
    strips = strips_from(file.strips, contents, weights) if file.strips is not None else None
    model = DeployedModel(
        contract=contract,
        graph=contents[file.graph.file],
        weights=weights,
        strips=strips,
        no_strips_reason=file.no_strips_reason,
        claims={**claims_of(contract), **layout},
        other_strips=other_strips_from(file.other_strips, contents, weights),
        placed=placed_from(file.placed, contents, weights) if file.placed is not None else None,
        levels=levels,
        statistics_key=file.statistics_key or "",
        keeping=keeping,
        whole=whole_from(file, contents),
        work=file.work,
    )
    engines, refused = read_engines(folder, file, model)
    curve = read_curve(folder, lambda: graph_hash(model)) if error_curve else None
    tuned = read_tuning(folder, lambda: graph_hash(model)) if tuning else None
    model = replace(model, engines=engines, engines_refused=refused, error_curve=curve, tuning=tuned)
    image, result = (_array(folder, name, contents[name]) for name in (file.sample.image, file.sample.result))
    return Bundle(path=folder, file=file, model=model, sample_image=image, sample_result=result)


def is_bundle(path: Path) -> bool:
    """Return whether ``path`` names a bundle: a folder, or its ``contract.json``."""
    return path.is_dir() or path.name == CONTRACT_NAME


def _read_contract(folder: Path) -> ContractFile:
    path = folder / CONTRACT_NAME
    if not folder.is_dir():
        raise BundleError(f"no bundle at {folder}: it must be a folder that holds {CONTRACT_NAME}")
    try:
        if path.stat().st_size > LARGEST_CONTRACT_BYTES:
            raise BundleError(f"{path} has {path.stat().st_size} bytes; a contract is smaller")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder} is no bundle: it holds no {CONTRACT_NAME}; make one with exactile convert"
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    header = _decode(data, Header, f"{path} is not a contract")
    if header.format != FORMAT:
        raise BundleError(f"{path} has format {header.format[:LONGEST_DETAIL]!r}, not {FORMAT!r}")
    if header.version > VERSION:
        raise BundleError(
            f"{path} has version {header.version} and this exactile reads up to {VERSION}: update exactile, or convert "
            "the model with this version"
        )
    return _decode(data, ContractFile, f"{path} is damaged")


def _decode(data: bytes, kind: type[Decoded], complaint: str) -> Decoded:
    """Raise BundleError for what is not JSON, not UTF-8, nested without end, or says something else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Names and values of a damaged file are part of these messages, as long as they are.
        detail = "".join(letter if letter.isprintable() else "?" for letter in str(error)[:LONGEST_DETAIL])
        raise BundleError(f"{complaint}: {detail}") from error


def _read_file(folder: Path, name: str, part: FilePart) -> bytes:
    """Return the content of a file, which must be what the contract says. Names hold no separators; links may still
    lead out.
    """
    path = folder / name
    try:
        if path.resolve().parent != folder.resolve():
            raise BundleError(
                f"{path} is a link that leads out of the bundle, to {path.resolve()}; put the file itself there"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: {name} is missing; copy the whole folder, or convert again") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) != part.bytes:
        raise BundleError(f"{path} has {len(data)} bytes where the contract says {part.bytes}; copy it again")
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise BundleError(f"{path} is not the file that was converted: its SHA-256 differs; copy it again")
    return data


def _needed(file: ContractFile) -> list[str]:
    names = [file.graph.file, file.tile.file, file.sample.image, file.sample.result]
    all_strips = [file.strips, *(other.strips for other in file.other_strips)]
    if file.placed is not None:
        names.append(file.placed.graph.file)
        all_strips += [file.placed.strips, *(other.strips for other in file.placed.other_strips)]
    passes: list[LevelPart | KeptPassPart] = [*file.levels]
    passes += file.keeping.passes if file.keeping is not None else ()
    for one in passes:
        names += [part.file for part in (one.graph, one.placed_graph) if part is not None]
    names += [level.on_device.graph.file for level in file.levels if level.on_device is not None]
    names += [file.whole.graph.file] if file.whole is not None else []
    for strips in all_strips:
        names += [getattr(strips.graphs, role).file for role in ROLES] if strips is not None else []
    return names + ([WEIGHTS_NAME] if file.weights else [])


def _weights(folder: Path, file: ContractFile, data: bytes) -> Mapping[str, NDArray[Any]]:
    found = {}
    for name, part in file.weights.items():
        dtype = np.dtype(part.dtype)
        if part.offset + prod(part.shape) * dtype.itemsize > len(data):
            raise BundleError(f"{folder}: weight {name!r} lies beyond the end of {WEIGHTS_NAME}")
        found[name] = np.frombuffer(data, dtype, prod(part.shape), part.offset).reshape(part.shape)
    return found


def _array(folder: Path, name: str, data: bytes) -> NDArray[Any]:
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise BundleError(f"{folder / name} is not an array: {error}") from error
