"""``make bench``: run every benchmark here and keep what it prints in ``benchmarks/results``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = {
    "exactness": [],
    "strips": ["--features", "16", "64", "--rows", "64", "128", "256"],
    "carry_placement": ["--rounds", "5"],
    "precision": [],
    "paper_tables": [],
    "end_to_end": [],
    "memory_model": ["--quick"],
    "read_speed": [],
    "write_speed": [],
    "throughput": [],
}


def main() -> None:
    (HERE / "results").mkdir(exist_ok=True)
    for name, options in SCRIPTS.items():
        print(f"== {name}", flush=True)
        done = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py"), *options], check=True, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout, flush=True)
        (HERE / "results" / f"{name}.md").write_text(done.stdout)


if __name__ == "__main__":
    main()
