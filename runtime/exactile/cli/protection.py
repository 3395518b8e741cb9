"""Compare the inputs of a command with all outputs, before it writes anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from exactile.cache.models import ModelCache
from exactile.cli.run_request import RunRequest
from exactile.contract.file_names import CONTRACT_NAME
from exactile.input_protection import Output, ProtectedInputs, image_inputs, model_inputs, result_outputs
from exactile.request.kept_models import external_files
from exactile.views.preview import picture_paths


def protect_run(request: RunRequest, images: Sequence[Path | str], targets: Sequence[Path]) -> None:
    """Check that no result, picture, record or trace replaces an image, the mask or the model.

    Raises InputOverwrittenError.
    """
    inputs = [found for image in images for found in image_inputs(image)]
    if request.skip_background not in (None, "nodata"):
        inputs += image_inputs(request.skip_background, "mask")
    if request.statistics is not None:
        inputs += image_inputs(request.statistics, "statistics")
    outputs = [output for target in targets for output in _run_outputs(request, target)]
    if request.trace is not None:
        outputs += _replaced(request.trace, "--trace")
    inputs += model_inputs(request.model.path, _external(request.model.path, outputs, request.model.model_cache))
    ProtectedInputs(inputs).check(outputs)


def protect_files(
    models: Iterable[Path],
    images: Iterable[Path] = (),
    *,
    files: Iterable[tuple[Path, str]],
) -> None:
    """Check that none of ``files``, each a path and the option that names it, replaces one of ``models`` or ``images``.

    Raises InputOverwrittenError.
    """
    outputs = [output for path, option in files for output in _replaced(path, option)]
    inputs = [found for image in images for found in image_inputs(image)]
    for model in models:
        inputs += model_inputs(model, _external(model, outputs, ModelCache.of_user()))
    ProtectedInputs(inputs).check(outputs)


def _external(model: Path, outputs: Iterable[Output], cache: ModelCache | None) -> tuple[Path, ...]:
    """Return the files that hold an ONNX file's weights; searched only if some output exists and could be one."""
    if not model.is_file() or model.name == CONTRACT_NAME or not any(output.path.is_file() for output in outputs):
        return ()
    return external_files(model, cache)


def _run_outputs(request: RunRequest, target: Path) -> Iterator[Output]:
    from exactile.request.records import pending_path, record_path
    from exactile.sinks.protocol import StoredSink

    sink = request.open_sink(target)
    yield from result_outputs(sink.path if isinstance(sink, StoredSink) else target)
    for name, path in picture_paths(target, request.pictures).items():
        yield from _replaced(path, f"--{name}")
    if request.keep_engine:
        yield from _replaced(record_path(target), "the record")
        yield from _replaced(pending_path(target), "the record")


def _replaced(path: Path, option: str) -> Iterator[Output]:
    """Yield the path of a small file, and the temporary one beside it."""
    yield Output(path=path, option=option)
    yield Output(path=path.with_name(f".{path.name}.new"), option=f"the unfinished part of {option}")
