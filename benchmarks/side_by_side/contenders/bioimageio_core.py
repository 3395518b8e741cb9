"""bioimageio.core: a model package with a halo, predicted block by block.

The package is what the BioImage.IO format asks for (``bioimage_package.py``): axes with a least size and a step, a
halo on the output's, division by 255 as preprocessing. Blocks are padded by reflection at the image's edges.
"""

from __future__ import annotations

import numpy as np
from bioimageio.core import Tensor, create_prediction_pipeline, load_model_description
from bioimageio.core.digest_spec import create_sample_for_model

from benchmarks.side_by_side.contenders.in_memory import InMemory, read_image
from benchmarks.side_by_side.task import Scores, Task

AXES = ("batch", "channel", "y", "x")


class Contender(InMemory):
    """Options: ``block``, the side of the network's input; ``halo``, that of the package."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        package = task.network / "package" / "rdf.yaml"
        self.model = load_model_description(package, format_version="latest", perform_io_checks=False)
        self.pipeline = create_prediction_pipeline(self.model, weight_format="onnx")

    def score(self) -> Scores:
        return self.scores_of(np.ascontiguousarray(read_image(self.task).transpose(2, 0, 1)))

    def scores_of(self, image: Scores) -> Scores:
        """Return scores; the package divides by 255 itself: ``image`` is as stored."""
        block, halo = self.task.options["block"], self.task.options["halo"]
        sample = create_sample_for_model(self.model, inputs={"image": Tensor.from_numpy(image[None], dims=AXES)})
        shape = {"image": {"batch": 1, "channel": image.shape[0], "y": block, "x": block}}
        found = self.pipeline.predict_sample_with_fixed_blocking(sample, shape)
        step = block - 2 * halo
        self.tiling.seams_y, self.tiling.seams_x = ([*range(0, size, step)] for size in image.shape[1:])
        self.tiling.computed_px = len(self.tiling.seams_y) * len(self.tiling.seams_x) * block**2
        return np.asarray(found.members["scores"].data.to_numpy()[0], np.float32)
