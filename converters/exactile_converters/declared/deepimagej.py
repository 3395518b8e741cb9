"""Recognise folders of DeepImageJ from before it adopted BioImage.IO's description, and refuse them with the reason."""

from __future__ import annotations

from pathlib import Path

from exactile.errors import ModelError

DESCRIPTION = "config.xml"
START_BYTES = 1 << 16


def refuse_deepimagej(folder: Path) -> None:
    """Raise ModelError where ``folder`` is one of DeepImageJ's with no other description than its own."""
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
        f"(preprocessing.txt), which is not run here. For the network alone: exactile convert {network}; give the "
        "normalisation with --scale, --mean and --std. Folders with rdf.yaml are read completely"
    )
