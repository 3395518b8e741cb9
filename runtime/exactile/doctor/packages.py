"""Check the packages that exactile reads and computes with: installed, importable, not in conflict."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from exactile.doctor.finding import Finding, Telling, one_line

GROUP = "packages"


@dataclass(frozen=True, slots=True)
class Package:
    """A package. ``need``: what does not work without it; "" for one that nothing works without.
    ``extra`` installs it.
    """

    distribution: str
    module: str
    need: str = ""
    extra: str = ""

    @property
    def install(self) -> str:
        return f"pip install 'exactile[{self.extra}]'" if self.extra else "pip install --force-reinstall exactile"


PACKAGES = (
    Package("numpy", "numpy"),
    Package("msgspec", "msgspec"),
    Package("psutil", "psutil"),
    Package("tifffile", "tifffile"),
    Package("imagecodecs", "imagecodecs"),
    Package("openslide-python", "openslide", "slide formats of vendors other than TIFF", "slides"),
    Package("pylibCZIrw", "pylibCZIrw", "Zeiss CZI images", "czi"),
    Package("wsidicom", "wsidicom", "slides in DICOM files", "dicom"),
    Package("zarr", "zarr", "Zarr images", "zarr"),
    Package("openvino", "openvino", "runs on a CPU with --engine openvino", "cpu-openvino"),
    Package("onnx", "onnx", "converting models, and running plain ONNX files", "convert"),
)
ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "ort-nightly")
"""Distributions that all install the module ``onnxruntime``."""


def check_packages(telling: Telling, _arguments: Mapping[str, Any]) -> None:
    for package in PACKAGES:
        telling.doing(f"importing {package.module}")
        telling.found(_package(package))
    telling.found(_onnx_runtime(telling))


def _package(package: Package) -> Finding:
    name, version = package.distribution, _version(package.distribution)
    facts = {"version": version}
    try:
        importlib.import_module(package.module)
    except Exception as error:  # noqa: BLE001  # whatever a broken installation raises
        if version is None and isinstance(error, ModuleNotFoundError) and package.need:
            says = f"{name} is not installed; it is for {package.need}."
            return _finding(name, "not applicable", says, package.install, facts)
        says = f"{name} {version or ''} cannot be imported ({one_line(str(error), 300)}).".replace("  ", " ")
        return _finding(name, "warning" if package.need else "failed", says, package.install, facts)
    return _finding(name, "ok", f"{name} {version or '(version unknown)'}.", "", facts)


def _onnx_runtime(telling: Telling) -> Finding:
    """Return the installed ones of these distributions; two of them overwrite each other's files."""
    found = {name: version for name in ONNX_RUNTIMES if (version := _version(name)) is not None}
    facts: dict[str, Any] = {"distributions": found, "version": None}
    listed = " and ".join(f"{name} {version}" for name, version in found.items())
    telling.doing("importing onnxruntime")
    try:
        import onnxruntime

        facts["version"] = str(onnxruntime.__version__)
    except Exception as error:  # noqa: BLE001  # whatever a broken installation raises
        says = f"onnxruntime cannot be imported ({one_line(str(error), 300)}); installed: {listed or 'none'}."
        remedy = "pip install 'exactile[cpu]', or on a machine with a GPU 'exactile[gpu]'."
        return _finding("onnxruntime", "failed", says, remedy, facts)
    where = {name: str(metadata.distribution(name).locate_file("")) for name in found}
    if len(set(where.values())) < len(found):
        remedy = f"pip uninstall --yes {' '.join(found)}, then pip install 'exactile[gpu]' or 'exactile[cpu]'."
        says = f"{listed} are both installed, and overwrite each other's files; {facts['version']} is what runs."
        return _finding("onnxruntime", "failed", says, remedy, facts)
    if len(found) > 1:
        says = f"{listed}, in different folders of Python's path; {_running(onnxruntime.__file__, where)} is what runs."
        return _finding("onnxruntime", "ok", says, "", facts)
    return _finding("onnxruntime", "ok", f"{listed or 'onnxruntime ' + facts['version']}.", "", facts)


def _running(module: str | None, where: Mapping[str, str]) -> str:
    """Return the distribution that the module belongs to, by their folders."""
    site = Path(module or "").resolve().parents[1]
    return next((name for name, folder in where.items() if Path(folder).resolve() == site), f"that in {site}")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except Exception:  # noqa: BLE001  # not installed, or with damaged metadata
        return None


def _finding(check: str, status: Any, says: str, remedy: str, facts: Mapping[str, Any]) -> Finding:
    return Finding(group=GROUP, check=check, status=status, says=says, remedy=remedy, facts=facts)
