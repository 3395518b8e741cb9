"""Shell completion: commands, options, choices; names of files are left to the shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import get_args

import pytest
from typer.testing import CliRunner

from exactile.cli.commands import NAMES
from exactile.cli.main import app
from exactile.cli.run_many import FORMATS
from exactile.processors.choice import ENGINE_NAMES
from exactile.sinks.tiles.codec import Compression


def completed(*words: str) -> list[str]:
    """What is offered for the last of ``words``."""
    line = {"COMP_WORDS": " ".join(("exactile", *words)), "COMP_CWORD": str(len(words))}
    done = CliRunner().invoke(app, [], prog_name="exactile", env={"_EXACTILE_COMPLETE": "complete_bash", **line})
    assert done.exit_code == 0, done.output
    return done.stdout.split()


def test_options_are_offered():
    assert completed("run", "--pl") == ["--plan"]
    assert completed("run", "unet.onnx", "slide.tif", "--dev") == ["--device", "--device-memory"]
    assert completed("run", "--no-py") == ["--no-pyramid"]


def test_commands_are_offered():
    assert completed("in") == ["inspect", "info"]
    assert completed("") == list(NAMES)


@pytest.mark.parametrize(
    ("option", "begun", "offered"),
    [
        ("--plan", "", ["auto", "whole", "tile", "strip"]),
        ("--border", "re", ["reflect"]),
        ("--output", "m", ["multilabel"]),
        ("--engine", "", list(ENGINE_NAMES)),
        ("--format", "", list(FORMATS)),
        ("--compression", "", list(get_args(Compression))),
        ("--compression", "z", ["zlib", "zstd"]),
    ],
)
def test_choices_are_offered(option, begun, offered):
    assert completed("run", "unet.onnx", "slide.tif", option, begun) == offered


@pytest.mark.parametrize(
    "words", [("run", ""), ("run", "unet.onnx", "sl"), ("run", "-o", ""), ("run", "--config", "r")]
)
def test_where_a_file_is_expected_the_shell_completes(words):
    """Nothing is offered: bash then completes names of files itself."""
    assert completed(*words) == []


def test_in_a_real_bash(tmp_path):
    """The script of --show-completion, as --install-completion writes it."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    command = tmp_path / "exactile"
    command.write_text(f"#!{sys.executable}\nfrom exactile.cli.main import run\nrun()\n")
    command.chmod(0o755)
    script = """
    eval "$(exactile --show-completion)"
    COMP_WORDS=(exactile run --pl) COMP_CWORD=2
    _exactile_completion exactile
    echo "offered ${COMPREPLY[*]}"
    complete -p exactile
    """
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "offered --plan\n" in done.stdout, done.stderr
    assert "-o default -F _exactile_completion exactile" in done.stdout  # with nothing to offer, files
