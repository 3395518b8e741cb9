"""Engines in the bundle's folder: find the one that fits, write one atomically, replace one with the same purpose."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import exactile
from exactile.bundle.engine_file import (
    ENGINES_FOLDER,
    PLAN_SUFFIX,
    SIDECAR_SUFFIX,
    EngineFile,
    TensorPart,
    encode_engine_file,
)
from exactile.bundle.engine_files import UnfitError, read_sidecar
from exactile.contract.built_engine import Backend, TensorSpec
from exactile.errors import SinkError
from exactile_converters.device.form import DeviceForm, DevicePrecision
from exactile_converters.tensorrt_engine.capability import Capabilities

SHORT_NAMES: dict[Backend, str] = {"tensorrt": "trt", "tensorrt-rtx": "rtx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What an engine is for, and what it is built from: everything in its sidecar except the engine itself."""

    form: DeviceForm
    onnx_sha256: str
    model_sha256: str
    backend: Backend
    backend_version: str
    compute_capabilities: Capabilities
    precision: DevicePrecision
    workspace_bytes: int | None
    optimization_level: int | None

    @property
    def key(self) -> str:
        """Return the name of its files."""
        form = self.form
        least, most = form.rows
        rows = str(least) if least == most else f"{least}to{most}"
        batch = f"{form.batch}x" if form.batch > 1 else ""
        gpus = "+".join(f"sm{major}{minor}" for major, minor in self.compute_capabilities)
        library = f"{SHORT_NAMES[self.backend]}{self.backend_version}"
        shape = f"{batch}{rows}x{form.columns}"
        role = form.role if form.level is None else f"pass{form.level}"
        return "-".join((role, shape, self.precision, gpus, library, self.onnx_sha256[:12]))

    def file(self, plan: memoryview) -> EngineFile:
        form = self.form
        return EngineFile(
            format="exactile.engine",
            version=1,
            made_by=f"exactile {exactile.__version__}",
            backend=self.backend,
            backend_version=self.backend_version,
            compute_capabilities=self.compute_capabilities,
            precision=self.precision,
            role=form.role,
            batch=form.batch,
            rows=form.rows,
            columns=form.columns,
            inputs={name: _part(spec) for name, spec in form.inputs.items()},
            outputs={name: _part(spec) for name, spec in form.outputs.items()},
            plan=f"{self.key}{PLAN_SUFFIX}",
            plan_bytes=plan.nbytes,
            plan_sha256=hashlib.sha256(plan).hexdigest(),
            onnx_sha256=self.onnx_sha256,
            model_sha256=self.model_sha256,
            workspace_bytes=self.workspace_bytes,
            optimization_level=self.optimization_level,
            level=form.level,
        )

    def same_use(self, other: EngineFile) -> bool:
        """Return whether ``other`` would be used for the same tiles or strips on the same GPUs."""
        return (
            (self.backend, self.precision, self.compute_capabilities)
            == (other.backend, other.precision, other.compute_capabilities)
            and (self.form.role, self.form.batch, self.form.rows, self.form.columns, self.form.level)
            == (other.role, other.batch, other.rows, other.columns, other.level)
        )  # fmt: skip

    def same_build(self, other: EngineFile) -> bool:
        """Return whether building it again would yield ``other`` again."""
        mine = (self.backend_version, self.onnx_sha256, self.model_sha256, self.workspace_bytes)
        theirs = (other.backend_version, other.onnx_sha256, other.model_sha256, other.workspace_bytes)
        return self.same_use(other) and mine == theirs and self.optimization_level == other.optimization_level


def present(bundle: Path, purpose: Purpose) -> tuple[bool, list[str]]:
    """Return whether the same engine exists, complete; and the others that it would replace."""
    folder = bundle / ENGINES_FOLDER
    fits, replaced = False, []
    for path in sorted(folder.glob(f"*{SIDECAR_SUFFIX}")) if folder.is_dir() else []:
        try:
            file = read_sidecar(path)
        except UnfitError:
            continue
        if not purpose.same_use(file):
            continue
        key = path.name.removesuffix(SIDECAR_SUFFIX)
        if key == purpose.key and purpose.same_build(file) and _is_whole(folder / f"{key}{PLAN_SUFFIX}", file):
            fits = True
        else:
            replaced.append(key)
    return fits, replaced


def write_engine(bundle: Path, purpose: Purpose, plan: memoryview, replaced: list[str]) -> EngineFile:
    """Write the engine and its sidecar, each atomically; then remove those that it replaces.

    Raises SinkError.
    """
    folder = bundle / ENGINES_FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SinkError(f"cannot make the folder {folder}: {error.strerror}") from error
    if folder.resolve().parent != bundle.resolve():
        raise SinkError(f"{folder} is a link that leads out of the bundle, to {folder.resolve()}; remove it")
    file = purpose.file(plan)
    write_whole(folder / file.plan, plan)
    write_whole(folder / f"{purpose.key}{SIDECAR_SUFFIX}", memoryview(encode_engine_file(file)))
    for key in replaced:
        if key != purpose.key:
            for suffix in (SIDECAR_SUFFIX, PLAN_SUFFIX):
                with suppress(OSError):
                    (folder / f"{key}{suffix}").unlink(missing_ok=True)
    return file


def write_whole(path: Path, data: memoryview) -> None:
    """Write ``data`` to ``path`` atomically, flushed to disk. Raises SinkError."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise SinkError(f"cannot write {path} ({data.nbytes} bytes): {error.strerror or error}") from error


def _is_whole(plan: Path, file: EngineFile) -> bool:
    try:
        if plan.is_symlink() or plan.stat().st_size != file.plan_bytes:
            return False
        with plan.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.plan_sha256
    except OSError:
        return False


def _part(spec: TensorSpec) -> TensorPart:
    return TensorPart(shape=spec.shape, dtype=spec.dtype)  # type: ignore[arg-type]  # the form has no other types
