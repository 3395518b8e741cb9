"""exactile, as its README says: a bundle, a session, a source and a sink."""

from __future__ import annotations

import numpy as np

from benchmarks.side_by_side.task import Scores, Task, Tiling
from exactile import ArraySink, Session, open_bundle, open_sink, open_source


class Contender:
    """Options: ``plan``; ``tile`` to force its shape; ``memory_bytes``, the budget for the whole process."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.tiling = Tiling()
        self.summary = None
        bundle = "scores.bundle" if task.scores else "labels.bundle"
        self.session = Session(
            open_bundle(task.network / bundle).model,
            memory_bytes=task.options.get("memory_bytes"),
            threads=task.threads,
        )

    def segment(self) -> float:
        return self._run(open_sink(self.task.output, overwrite=True))

    def score(self) -> Scores:
        sink = ArraySink()
        self._run(sink)
        return np.asarray(sink.result)

    def _run(self, sink) -> float:
        plan, tile = self.task.options.get("plan", "auto"), self.task.options.get("tile")
        source = open_source(self.task.image)
        chosen = self.session.segment(
            source, sink, plan=plan, tile=tuple(tile) if tile else None, planned=self._note_seams
        )
        self.tiling.computed_px = chosen.computed_pixels
        source.close()
        return chosen.seconds.open

    def _note_seams(self, plan) -> None:
        self.tiling.seams_y = [zor.start for zor in plan.y.zors if zor.start]
        self.tiling.seams_x = [zor.start for zor in plan.x.zors if zor.start]
