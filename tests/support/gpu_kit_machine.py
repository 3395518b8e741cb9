"""A machine without a network for the GPU kit's rehearsal: a copy of the project elsewhere, CPython 3.12, a guard.

The guard is a ``sitecustomize`` in every Python process there: it refuses sockets that leave the machine, and notes
files that are opened outside the copy, the interpreter and the system's own folders.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_kit.rehearsal import VARIABLE
from benchmarks.gpu_kit.wheels import matching_python
from tests.support.folders import ROOT

HAS = (
    *("torch==2.13.0", "numpy==2.5.2", "onnx==1.23.1", "onnx-ir==1.0.0", "onnxscript==0.7.2", "onnxruntime==1.30.0"),
    *("cuda-bindings>=13,<14", "psutil"),
    *("typer", "rich", "pillow", "scikit-image", "scipy", "pytest", "hypothesis", "packaging", "pyyaml", "markupsafe"),
    *("typing-extensions", "fsspec", "matplotlib", "setuptools", "pip"),
)
"""What the machine has that the kit relies on, in its versions; its torch is 2.11."""
GUARD = """
import os
import sys

ALLOWED = tuple(filter(None, os.environ["GUARD_ALLOWED"].split(os.pathsep)))
NOTES = os.environ["GUARD_NOTES"]
LOCAL = {1}  # AF_UNIX


def _note(text):
    descriptor = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (text + "\\n").encode())
    os.close(descriptor)


def _hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path != NOTES and not path.startswith(ALLOWED):
            _note(f"file {path}")
    elif event == "socket.getaddrinfo" or (event == "socket.connect" and arguments[0].family not in LOCAL):
        _note(f"network {arguments[0]}")
        raise OSError("there is no network")


sys.addaudithook(_hook)
"""
SYSTEM = ("/proc/", "/sys/", "/dev/", "/usr/", "/lib", "/etc/", "/bin/")


@dataclass(frozen=True, slots=True)
class Machine:
    """``folder`` holds the project's copy, a home, temporary files and the guard's notes; ``environment`` is a venv."""

    folder: Path
    environment: Path

    @property
    def copy(self) -> Path:
        return self.folder / "exactile"

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    def run(self, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """``python3 -m benchmarks.gpu_kit ARGUMENTS`` there, in a rehearsal."""
        command = [str(self.python), "-m", "benchmarks.gpu_kit", *arguments]
        return subprocess.run(
            command,
            cwd=self.copy,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def notes(self) -> list[str]:
        """What the guard refused or noted."""
        path = self.folder / "notes"
        return sorted(set(path.read_text().splitlines())) if path.exists() else []

    def _environment(self) -> dict[str, str]:
        """Nothing of this process's but the way to the compiler."""
        interpreter = Path(os.path.realpath(self.python)).parents[1]
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return {
            "PATH": os.defpath + os.pathsep + "/usr/local/bin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(self.folder / "guard"),
            "GUARD_ALLOWED": os.pathsep.join([f"{self.folder}/", f"{self.environment}/", f"{interpreter}/", *SYSTEM]),
            "GUARD_NOTES": str(self.folder / "notes"),
            VARIABLE: "1",
        }


def make_machine(folder: Path, kit: Path, environment: Path) -> Machine:
    """Copy the project's tracked files and the kit's parts. ``environment`` has what the machine has."""
    machine = Machine(folder, environment)
    for name in ("home", "guard"):
        (folder / name).mkdir(parents=True)
    (folder / "guard" / "sitecustomize.py").write_text(GUARD)
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        target = machine.copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    shutil.copytree(kit, machine.copy / "build" / "gpu-kit")
    return machine


def make_environment(folder: Path) -> Path:
    """A virtual environment with what the machine has: gigabytes, from the package index."""
    subprocess.run([matching_python(), "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *HAS], check=True)
    return folder
