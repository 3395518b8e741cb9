"""Report on stderr what a result's numbers mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exactile.pipeline.stored_values import NAN_STORED_AS

if TYPE_CHECKING:
    from exactile.bundle.contract_file import VerificationPart
    from exactile.contract import ResultOutput, Verification
    from exactile.pipeline.stored_values import NanReport


def tell_doubt(doubt: str) -> None:
    """Print one line if the graph does not prove what its output means."""
    if doubt:
        sys.stderr.write(f"note: {doubt}\n")


def tell_unverified(model: str, reason: str) -> None:
    """Print one line if a network could not be run to check what its graph claims."""
    sys.stderr.write(f"note: {model} is used by the rules only, not checked by running it: {reason}\n")


def tell_unproven(model: str, known: Verification | VerificationPart | None) -> None:
    """One line where the halo of a network is that which runs showed, as --trust-probe asks for."""
    if known is not None and known.by == "probe":
        sys.stderr.write(f"warning: {model} is not proven to run exactly in tiles: {known.note}\n")


def nan_object(nan: NanReport) -> dict[str, Any]:
    """Return plain data; ``first`` is [row, column]."""
    return {"pixels": nan.pixels, "first": list(nan.first) if nan.first is not None else None}


def warn_of_nan(nan: NanReport, result: ResultOutput, image: Path | str) -> None:
    """Print one line if scores were not numbers."""
    if nan.first is None:
        return
    kept = f"they are {NAN_STORED_AS}" if result.kind in ("labels", "multilabel") else "they are NaN in the result, too"
    sys.stderr.write(
        f"warning: {image}: the network's output is not a number (NaN) at {nan.pixels} pixels, the first at row "
        f"{nan.first[0]}, column {nan.first[1]}; {kept}\n"
    )
