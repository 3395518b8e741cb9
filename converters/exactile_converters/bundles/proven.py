"""Deploy a network after a check of its claim: refuse it where tiles differ, and omit strips where strips differ.

``deploy`` alone reads the graph only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from exactile.contract import DeployedModel, Verification
from exactile.errors import VerificationError
from exactile_converters.networks.network import Network
from exactile_converters.verify.claim_check import ClaimCheck, Progress, check_claim
from exactile_converters.verify.verdicts import keep_verdict, kept_for, kept_verdict, verdict_key


def proven(
    deploy: Callable[[bool], DeployedModel], found: ClaimCheck | None, *, name: str, strips: bool, skipped: str = ""
) -> DeployedModel:
    """Return what ``deploy(strips)`` makes, as ``found`` allows; ``found`` is None where nothing was run, for the
    reason ``skipped``.

    Raises VerificationError where tiles differ from one pass.
    """
    if found is None:
        model = deploy(strips)
        return _with(model, Verification(note=skipped))
    if found.tiles:
        raise refusal(name, found)
    model = deploy(strips and not found.strips)
    if found.strips:
        model = replace(model, no_strips_reason=f"found by running the network: {found.strips}")
    return _with(model, verification_of(found))


def _with(model: DeployedModel, verification: Verification) -> DeployedModel:
    keeping = model.keeping
    if keeping is not None:
        keeping = replace(keeping, model=_with(keeping.model, verification))
    return replace(model, contract=replace(model.contract, verification=verification), keeping=keeping)


def refusal(name: str, found: ClaimCheck) -> VerificationError:
    """Return the error that says what differs, and what to do about it."""
    return VerificationError(
        f"{name}: running the network shows that tiles would not equal one pass: {found.tiles}. The rule for one of "
        "its operators is wrong; please report this model. exactile run MODEL.onnx --plan whole makes one pass over "
        "the image; --no-verify leaves this check out, and the result is then not exact"
    )


def verification_of(found: ClaimCheck) -> Verification:
    """Return the verification for the contract."""
    if found.untried:
        return Verification(note=f"not run: {found.untried}")
    if found.strips:
        what = "tiles equal one pass at small sizes, strips do not and are left out"
    elif found.with_strips:
        what = "tiles and strips equal one pass at small sizes"
    else:
        what = "tiles equal one pass at small sizes"
    exactly = f"max-abs {found.max_abs:.2g} of values up to {found.largest:.3g}" if found.max_abs else "bit for bit"
    return Verification(by="running", note=f"{what}, {exactly}")


def kept_verification(source: Path, *, output_name: str | None) -> Verification:
    """Return what is known of the ONNX file ``source`` from an earlier run."""
    found = kept_for(source, output_name=output_name)
    if found is None:
        return Verification(note="it was not run yet; run and convert do so at its first use")
    if found.tiles:
        return Verification(note=f"and they are wrong: {found.tiles}")
    return verification_of(found)


def check_once(
    source: Path,
    network: Network,
    *,
    output_name: str | None,
    strips: bool,
    memory_bytes: int | None = None,
    progress: Progress = lambda _done, _steps: None,
) -> ClaimCheck:
    """Run ``check_claim`` for the network in the ONNX file ``source``, or return what it found the last time.

    Raises NotTileableError.
    """
    key = None
    with suppress(OSError):
        key = verdict_key(source, output_name=output_name, strips=strips)
        if (kept := kept_verdict(key)) is not None:
            return kept
    found = check_claim(network, strips=strips, memory_bytes=memory_bytes, progress=progress)
    if key is not None and not found.untried:
        keep_verdict(key, found)
    return found
