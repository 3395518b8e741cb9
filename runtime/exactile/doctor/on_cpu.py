"""Run the small network on the CPU: the recorded labels, in one pass, in tiles and in strips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from exactile.doctor.finding import Finding, Telling
from exactile.doctor.small_network import difference, noise_image, open_small, run
from exactile.planning import PlanName
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sources.array import ArraySource

GROUP = "results"
CHECK, OPENVINO_CHECK = "cpu", "cpu openvino"
PLANS: tuple[PlanName, ...] = ("tile", "strip")


def check_cpu(telling: Telling, arguments: Mapping[str, Any]) -> None:
    """Compare the sample with its recorded result, then tiles and strips of a larger image with one pass.

    ``engine`` is another than ONNX Runtime.
    """
    engine = arguments.get("engine", "onnxruntime")
    check = CHECK if engine == "onnxruntime" else OPENVINO_CHECK
    remedy = f"install {engine} anew: pip install --force-reinstall {engine}; if that does not help, report it."
    telling.doing(f"running the small network on the CPU, by {engine}")
    bundle = open_small("labels")
    sink = ArraySink()
    session = Session(bundle.model, device="cpu", engine=engine)
    session.segment(ArraySource(bundle.sample_image), sink, plan="whole")
    differing = difference(bundle.sample_result, sink.result).differing
    image = noise_image()
    whole = run(bundle.model, image, plan="whole", engine=engine)
    ran = {plan: run(bundle.model, image, plan=plan, engine=engine) for plan in PLANS}
    unlike = {plan: int(np.count_nonzero(each.result != whole.result)) for plan, each in ran.items()}
    speed = image.shape[0] * image.shape[1] / 1e6 / max(whole.seconds, 1e-9)
    facts = {
        "processor": whole.processor,
        "differing_from_recorded": differing,
        "differing_from_one_pass": unlike,
        "megapixels_per_second": round(speed, 2),
    }
    said = f"{whole.processor}: a small network gives"
    if differing or any(unlike.values()):
        says = (
            f"{said} wrong labels: {differing} of {sink.result.size} are not those recorded, and of {whole.result.size}"
            f" {unlike['tile']} in tiles and {unlike['strip']} in strips are not those of one pass."
        )
        telling.found(Finding(group=GROUP, check=check, status="failed", says=says, remedy=remedy, facts=facts))
        return
    says = f"{said} the recorded labels, and the same in tiles and strips as in one pass, at {speed:.1f} Mpx/s."
    telling.found(Finding(group=GROUP, check=check, status="ok", says=says, facts=facts))
