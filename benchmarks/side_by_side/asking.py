"""Run a contender once, in its own process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.worker import ROOT, run_worker
from benchmarks.side_by_side.cases import Entry

PEERS = ROOT / ".venv-peers" / "bin" / "python"
"""The interpreter that peers are installed for; the Makefile makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What all contenders get; raises WorkerError where one fails."""

    network: Path
    image: Path
    output: Path
    threads: int = 2
    peers: Path = PEERS

    def __call__(
        self, entry: Entry, *, output: Path | None = None, scores: Path | None = None, **options: Any
    ) -> dict[str, Any]:
        """Run it; ``scores`` is where scores go instead of labels; ``options`` come before the entry's."""
        request = {
            "module": entry.module,
            "network": str(self.network),
            "image": str(self.image),
            "output": str(output or self.output),
            "threads": self.threads,
            "options": entry.options | options,
            "scores": str(scores) if scores else None,
            "packages": entry.packages,
        }
        python = sys.executable if entry.ours else self.peers
        return run_worker("benchmarks.side_by_side.worker", request, python=python)
