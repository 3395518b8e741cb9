"""Build small engines, if the converter's packages are installed."""

from __future__ import annotations

import shutil
from pathlib import Path

from exactile.bundle.opening import open_bundle
from exactile.contract import DeployedModel
from exactile.contract.built_engine import Backend
from exactile.doctor.small_network import IMAGE_PX, STRIP_ROWS, TILE_PX, Name, bundle_path

bundle_names: tuple[Name, ...] = ("labels", "scores")


class MissingConverterError(Exception):
    """A package that the converter needs is not installed."""


def with_small_engines(
    folder: Path, backend: Backend, precision: str, capability: tuple[int, int]
) -> dict[str, DeployedModel]:
    """Return copies of the small bundles in ``folder``, with engines for tiles and strips of the test image.

    Raises MissingConverterError, EngineBuildError, OptionError.
    """
    try:
        from exactile_converters.tensorrt_engine.engines import build_engines
        from exactile_converters.tensorrt_engine.settings import EngineSettings
    except ImportError as error:
        raise MissingConverterError(f"building an engine needs {error.name or 'the converter'}") from error
    settings = EngineSettings(
        backend=backend,
        precision=precision,  # type: ignore[arg-type]  # one of those that it knows
        tile=(TILE_PX, TILE_PX),
        strip_rows=STRIP_ROWS,
        strip_width=IMAGE_PX,
        compute_capabilities=(capability,),
    )
    models: dict[str, DeployedModel] = {}
    for name in bundle_names:
        path = folder / name
        shutil.copytree(bundle_path(name), path)
        build_engines(path, settings)
        models[name] = open_bundle(path).model
    return models
