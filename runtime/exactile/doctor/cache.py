"""Check the user's cache folder: where it is, what it holds, and whether it can be written."""

from __future__ import annotations

import os

from exactile.cache.models import ModelCache
from exactile.doctor.finding import Finding
from exactile.errors import OptionError
from exactile.machine.cache_folder import FOLDER_VARIABLE, SIZE_VARIABLE
from exactile.plan.budget import format_bytes

GROUP = "machine"
CHECK = "cache"


def cache() -> Finding:
    """Report on deployed models; a folder that the user named is shown by the variable's name."""
    try:
        found = ModelCache.of_user()
    except OptionError as error:
        return Finding(group=GROUP, check=CHECK, status="failed", says=f"{error}.", remedy="see docs/usage.md.")
    if found is None:
        says = f"No deployed models are kept: {SIZE_VARIABLE} is 0, or the converter is not installed."
        return Finding(group=GROUP, check=CHECK, status="not applicable", says=says)
    models, size = found.usage()
    named = os.environ.get(FOLDER_VARIABLE)
    folder = f"${FOLDER_VARIABLE}/{found.folder.name}" if named else str(found.folder)
    facts = {"folder": folder, "files": models, "bytes": size, "most_bytes": found.most_bytes}
    says = (
        f"Deployed models are kept in {folder}: {models} files, {format_bytes(size)} of at most "
        f"{format_bytes(found.most_bytes)}."
    )
    if found.is_writable():
        return Finding(group=GROUP, check=CHECK, status="ok", says=says, facts=facts)
    remedy = f"set {FOLDER_VARIABLE} to a folder that can be written; else every run deploys its ONNX file again."
    says = f"{says} The folder cannot be written."
    return Finding(group=GROUP, check=CHECK, status="warning", says=says, remedy=remedy, facts=facts)
