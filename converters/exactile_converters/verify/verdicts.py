"""Keep verdicts from run to run: one small file each in the user's cache folder.

A verdict belongs to the model's bytes, to the rules that made the claim and to the engine that was run. A cache that
cannot be read or written costs time, nothing else.
"""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from exactile.cache.rules import rules_digest
from exactile.machine.cache_folder import cache_folder
from exactile_converters.prepare.external_files import external_files
from exactile_converters.verify.claim_check import ClaimCheck


def verdict_key(model: Path, *, output_name: str | None, strips: bool) -> str:
    """Return the SHA-256 of all that a verdict on the ONNX file ``model`` depends on. Raises OSError."""
    digest = hashlib.sha256(f"{rules_digest()} {output_name!r} {strips}".encode())
    for path in (model, *external_files(model)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def kept_verdict(key: str) -> ClaimCheck | None:
    """Return what was found before; None where nothing was, or the file is damaged."""
    with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.json.decode(_path(key).read_bytes(), type=ClaimCheck, strict=True)
    return None


def keep_verdict(key: str, found: ClaimCheck) -> None:
    """Keep ``found``, if the folder can be written."""
    path = _path(key)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(msgspec.json.encode(found))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def kept_for(model: Path, *, output_name: str | None) -> ClaimCheck | None:
    """Return the verdict on ``model``: on tiles and strips, or else on tiles alone."""
    with suppress(OSError):
        for strips in (True, False):
            found = kept_verdict(verdict_key(model, output_name=output_name, strips=strips))
            if found is not None:
                return found
    return None


def _path(key: str) -> Path:
    return cache_folder() / "verdicts" / f"{key}.json"
