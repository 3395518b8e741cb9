"""Read the metadata of Ultralytics' exporter; models of the task "semantic" output a map of the image.

By its source (``engine/exporter.py``, ``models/yolo/semantic``): samples of uint8 are divided by 255, red first; the
output is a score for each class, of which the largest is taken, or one channel, which is above 0, or labels.
"""

from __future__ import annotations

from exactile.errors import ModelError
from exactile_converters.declared.properties import Properties
from exactile_converters.networks.declaration import Declaration, Scaling

SEMANTIC = "semantic"
RESIZED = (
    "Ultralytics resizes an image to the size of the export, and its labels back; here the image is taken at its own "
    "resolution"
)
OTHERS = {
    "detect": "its output is boxes",
    "segment": "its output is boxes with mask coefficients, from which objects are made by non-maximum suppression",
    "pose": "its output is boxes with key points",
    "obb": "its output is rotated boxes",
    "classify": "it classifies the image as a whole",
}


def ultralytics_declaration(properties: Properties, *, wanted: bool) -> Declaration | None:
    """Return the declaration; None without metadata of Ultralytics. ``wanted``: an output was asked for by name.

    Raises ModelError for other tasks, and for damaged metadata.
    """
    task = properties.values.get("task")
    if task is None or not {"stride", "names"} <= properties.values.keys():
        return None
    if task != SEMANTIC and not wanted:
        reason = OTHERS.get(task, "its output is not supported")
        raise ModelError(
            f"{properties.name} is a model of Ultralytics for the task {task}: {reason}, not a class for each pixel. "
            "Models of the task semantic are taken; --output-name NAME takes one of its outputs as a map"
        )
    one = properties.floats and properties.channels_out == 1
    names = properties.names("names") if task == SEMANTIC else ()
    channels = properties.number("channels")
    return Declaration(
        source=f"Ultralytics, task {task}",
        scaling=Scaling(scale=(255.0,), samples=("uint8",)),
        image_dtype="uint8",
        channels=int(channels) if channels is not None else None,
        output="labels" if task == SEMANTIC else None,
        activation="sigmoid" if one and task == SEMANTIC else None,
        classes=("background", *names) if len(names) == 1 else names,
        notes=(RESIZED,),
    )
