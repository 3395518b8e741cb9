"""Folders of DeepImageJ before it took BioImage.IO's description: they are told, and refused with the reason."""

from __future__ import annotations

from pathlib import Path

from exactile.errors import ModelError

DESCRIPTION = "config.xml"
START_BYTES = 1 << 16


def refuse_deepimagej(folder: Path) -> None:
    """Raises ModelError where ``folder`` is one of DeepImageJ's with no other description than its own."""
    description = folder / DESCRIPTION
    if not description.is_file():
        return
    with description.open("rb") as file:
        if b"<ModelInformation>" not in file.read(START_BYTES):
            return
    scripts = sorted(path.name for path in folder.glob("*.pt"))
    network = f"{folder / scripts[0]}" if scripts else "FOLDER, with saved_model.pb and variables/ alone in it"
    raise ModelError(
        f"{folder} is a model of DeepImageJ in its old form ({DESCRIPTION}): how it is fed is a macro of ImageJ "
        f"(preprocessing.txt), which is not run here. The network alone: exactile convert {network}; how samples are "
        "normalised is then to be said with --scale, --mean and --std. Folders with rdf.yaml are read whole"
    )
