"""Protect inputs: no output of a run may replace one, whatever names, links or folders lead to it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exactile.contract.file_names import CONTRACT_NAME
from exactile.errors import InputOverwrittenError
from exactile.sinks.files.found_file import found_path, new_found_path
from exactile.sinks.files.part_file import part_path
from exactile.sinks.protocol import Sink, StoredSink
from exactile.sinks.resume.journal import journal_path
from exactile.sinks.zarr.sink import is_zarr_group
from exactile.sources.protocol import Source, StoredSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An output of a run: a file, or a folder that is replaced with its contents. ``option`` names it."""

    path: Path
    option: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An input of a run: a file, or a folder as a whole (a bundle, a Zarr image); ``what`` names it in messages."""

    path: Path
    what: str


@dataclass(slots=True)
class ProtectedInputs:
    """The inputs of a run, indexed so that many outputs are compared with many inputs in linear time."""

    inputs: Sequence[Input]
    _by_file: dict[tuple[int, int], Input] = field(default_factory=dict)
    _by_path: dict[Path, Input] = field(default_factory=dict)
    _within: dict[Path, Input] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for given in self.inputs:
            real = real_path(given.path)
            self._by_path.setdefault(real, given)
            for folder in (*real.parents, *given.path.absolute().parents):
                self._within.setdefault(folder, given)
            for key in _file_keys(given.path):
                self._by_file.setdefault(key, given)

    def check(self, outputs: Iterable[Output]) -> None:
        """Check that ``outputs`` leave every input unchanged.

        Raises InputOverwrittenError if one is an input (by name, symbolic or hard link), lies within one, or replaces a
        folder that holds one.
        """
        for output in outputs:
            real = real_path(output.path)
            found = self._by_path.get(real) or self._same_file(output.path)
            if found is not None:
                _refuse(output, found, "is")
            if real.is_dir() and real in self._within:
                _refuse(output, self._within[real], "is a folder that holds")
            around = next((self._by_path[folder] for folder in real.parents if folder in self._by_path), None)
            if around is not None and not _label_beside_image(real, around):
                _refuse(output, around, "lies within")

    def _same_file(self, path: Path) -> Input | None:
        return next((self._by_file[key] for key in _file_keys(path) if key in self._by_file), None)


def result_outputs(path: Path, option: str = "-o") -> Iterator[Output]:
    """Yield a result, and the files that its sink keeps beside it while it is not complete."""
    yield Output(path=path, option=option)
    yield Output(path=part_path(path), option=f"the unfinished part of {option}")
    yield Output(path=journal_path(path), option=f"the journal of {option}")
    for kept in (found_path(path), new_found_path(path)):
        yield Output(path=kept, option=f"the statistics of {option}")


def check_source_kept(source: Source, sink: Sink) -> None:
    """Check that ``sink`` does not write over what ``source`` reads. Raises InputOverwrittenError."""
    if isinstance(source, StoredSource) and isinstance(sink, StoredSink):
        ProtectedInputs(image_inputs(source.stored_path)).check(result_outputs(sink.path, "the output"))


def image_inputs(image: str | os.PathLike[str], what: str = "image") -> list[Input]:
    """Return the file or folder of an image on this machine, and the folder that some slides have beside their file."""
    path = Path(image)
    if not path.exists():
        return []
    companion = path.with_suffix("")
    found = [Input(path=path, what=what)]
    if path.suffix.lower() == ".mrxs" and companion.is_dir():
        found.append(Input(path=companion, what=f"{what}'s data"))
    return found


def model_inputs(model: Path, external: Iterable[Path] = ()) -> list[Input]:
    """Return a bundle's folder as a whole, or a model's file and its ``external`` weights."""
    folder = model.parent if model.name == CONTRACT_NAME else model
    return [Input(path=folder, what="model"), *(Input(path=path, what="model's weights file") for path in external)]


def real_path(path: Path) -> Path:
    """Return ``path`` with all links resolved, also if its last part does not exist yet."""
    return Path(os.path.realpath(path))


def _file_keys(path: Path) -> Iterator[tuple[int, int]]:
    """Yield what identifies a file on the machine; nothing if there is none."""
    try:
        found = path.stat()
    except OSError:
        return
    yield found.st_dev, found.st_ino


def _label_beside_image(real: Path, image: Input) -> bool:
    """Return whether a result is labels in the Zarr container of their image, where OME-Zarr has them:
    ``IMAGE.zarr/labels/NAME``.
    """
    container = real_path(image.path)
    return image.what == "image" and real.parent == container / "labels" and is_zarr_group(container)


def _refuse(output: Output, found: Input, relation: str) -> None:
    raise InputOverwrittenError(
        f"{output.option} {output.path} {relation} the {found.what} {found.path}, which would be lost. "
        "What to do: choose another name; --overwrite replaces earlier results, never inputs"
    )
