"""Turn what steps brought back into results: ``benchmarks/results/gpu-step-*.json`` and ``.md``."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gpu_kit.report import markdown
from benchmarks.harness.part import RESULTS

STEPS = ("step-a", "step-b", "step-c")


def collect(folder: Path, results: Path = RESULTS) -> list[Path]:
    """Write the records of all steps in ``folder`` to ``results``; the files written.

    A record of a rehearsal is refused: nothing was measured. Raises ValueError, and FileNotFoundError without a record.
    """
    found = [folder / f"{step}.json" for step in STEPS if (folder / f"{step}.json").exists()]
    if not found:
        raise FileNotFoundError(f"{folder} has no record of a step ({', '.join(STEPS)})")
    records = [json.loads(path.read_text()) for path in found]
    for path, record in zip(found, records, strict=True):
        if not isinstance(record["machine"]["gpus"], list) or not record["machine"]["gpus"]:
            raise ValueError(f"{path} was not made on a GPU: {record['machine']['gpus'] or 'no nvidia-smi'}")
    results.mkdir(parents=True, exist_ok=True)
    written = []
    for record in records:
        for suffix, text in ((".json", json.dumps(record, indent=1) + "\n"), (".md", markdown(record))):
            path = results / f"gpu-{record['step']}{suffix}"
            path.write_text(text)
            written.append(path)
    return written
