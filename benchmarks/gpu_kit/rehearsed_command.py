"""The command line on the emulated driver: ``python -m benchmarks.gpu_kit.rehearsed_command``."""

from __future__ import annotations

from benchmarks.gpu_kit.provider import stand_in_for_cuda
from benchmarks.gpu_kit.rehearsal import prepare_process

if __name__ == "__main__":
    prepare_process()
    stand_in_for_cuda()
    from exactile.cli.main import run

    run()
