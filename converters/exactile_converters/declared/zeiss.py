"""Read Zeiss' models: ``.czann`` (described in JSON) and ``.czseg`` or ``.czmodel`` (in XML), zipped with ONNX.

The formats are those that the package czmodel writes (Carl Zeiss Microscopy, Apache 2.0), and the "CZANN Model
Specification" in its documentation. That package does not read all that is needed: of a .czseg neither whether samples
are scaled, nor colours and tiles.
"""

from __future__ import annotations

from pathlib import Path

from exactile.errors import ModelError
from exactile_converters.declared.archive import Archive
from exactile_converters.declared.czann import czann_declaration
from exactile_converters.declared.czseg import czseg_declaration
from exactile_converters.networks.declaration import Declaration

DESCRIPTION, MODEL = "model.json", ".model"


def read_zeiss(path: Path) -> tuple[bytes, Declaration] | None:
    """Return the ONNX model in the archive at ``path``, and its declaration; None where it is not a model of Zeiss.

    Raises ModelError where it is one that cannot be used.
    """
    archive = Archive.of(path)
    if archive is None or not archive.ending(MODEL):
        return None
    if DESCRIPTION in archive.names:
        declaration = czann_declaration(archive.description(DESCRIPTION), path)
    elif archive.ending(".xml"):
        declaration = czseg_declaration(archive.description(archive.only(".xml")), path)
    else:
        return None
    name = archive.only(MODEL)
    model = archive.model(name)
    if model.startswith(b"PK\x03\x04"):
        raise ModelError(
            f"{path}: its network is no ONNX model but a zipped one of TensorFlow or PyTorch. Unpack {path}, then "
            f"{name} in it, and give what that holds: exactile convert FOLDER (with saved_model.pb) or FILE.pt"
        )
    return model, declaration
