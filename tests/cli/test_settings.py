"""Settings files of ``exactile run``: ``--config`` reads what ``--dump-config`` prints, and what people write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exactile.cli.commands import Commands
from exactile.cli.settings import settings_of
from exactile.request.records import record_path
from tests.support.command import forked, within
from tests.support.folders import ROOT
from tests.support.nets import onnx_file

COMMAND = Commands().get_command(None, "run")
SETTINGS = settings_of(COMMAND)
GIVEN = ("unet.onnx", "slide.tif")
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=6)
PATHS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map(
    lambda names: "/" + "/".join(names)
)


def effective(*words: object) -> dict:
    """The values of all parameters for a command line."""
    with COMMAND.make_context("run", [str(word) for word in words]) as context:
        return {name: context.params[name] for name in sorted(context.params) if name not in ("config", "dump_config")}


def written(folder: Path, text: str, name: str = "run.toml") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def words_of(setting) -> st.SearchStrategy[list[str]]:
    """An option as it is typed."""
    name = f"--{setting.key.replace('_', '-')}"
    if setting.type is bool:
        return st.sampled_from([[one] for one in (name, *setting.parameter.secondary_opts)])
    values = TEXT
    if setting.choices:
        values = st.sampled_from(setting.choices)
    elif setting.key == "skip_background":
        values = st.sampled_from(["220", "<10", ">3.5", "nodata", "/masks/one.png"])
    elif setting.type is Path:
        values = PATHS
    elif setting.type is int:
        values = st.integers(1, 10**6).map(str)
    elif setting.type is float:
        values = st.floats().map(repr)
    elif setting.type is not str:
        return st.lists(TEXT, min_size=1, max_size=3).map(lambda texts: [f"{name}={text}" for text in texts])
    return values.map(lambda value: [f"{name}={value}"])


COMMAND_LINES = st.fixed_dictionaries(
    {"to": words_of(SETTINGS["to"])},
    optional={key: words_of(setting) for key, setting in SETTINGS.items() if key != "to"},
).map(lambda options: [word for words in options.values() for word in words])


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(options=COMMAND_LINES)
@example(options=['--to=/a"b\\c\n.tif', "--label-name=\x7f\x00\x1f\x85\t\r\n\u2028é😀'", "--mean=", "--mean=#"])
def test_what_is_printed_is_read_back(tmp_path, options):
    """All options, with any text: quotes, line ends, control characters."""
    printed = within("run", *GIVEN, *options, "--dump-config")
    assert printed.returncode == 0, printed.stderr
    file = written(tmp_path, printed.stdout)
    assert repr(effective(*GIVEN, "--config", file)) == repr(effective(*GIVEN, *options))
    assert within("run", "--config", file, "--dump-config").stdout == printed.stdout


def test_without_arguments_all_options_are_printed_as_comments(tmp_path):
    printed = within("run", "--dump-config")
    assert printed.returncode == 0
    assert tomllib.loads(printed.stdout) == {}
    named = [line[2:].split(" = ")[0] for line in printed.stdout.splitlines() if " = " in line]
    assert named == list(SETTINGS)
    assert "# Threads on a CPU. [default: all cores]\n# threads = an integer\n" in printed.stdout
    assert '# What lies outside the image.\n# border = "model"\n' in printed.stdout
    file = written(tmp_path, printed.stdout)
    assert effective(*GIVEN, "-o", "x.tif", "--config", file) == effective(*GIVEN, "-o", "x.tif")


def test_arguments_are_required_again_once_options_were_printed():
    assert effective("--dump-config")["target"] is None
    with pytest.raises(typer.BadParameter):
        effective()
    missing = within("run")
    assert (missing.returncode, "Missing argument" in missing.stderr) == (2, True)


PEOPLE = """
scale = 255
mean = [0.7, 0.5, 0.6]
std = "0.2"
channels = [0, 1, 2]
percentiles = [1, 99.8]
tile = [512, 768]
lanes = 2
skip_background = 220
nodata = nan
nodata_label = 3
plan = "strip"
pyramid = false
keep = false
trial = true
tolerance = 1e-5
json = true
format = ".npy"
"""


def test_numbers_arrays_and_flags_mean_what_the_command_line_means(tmp_path):
    words = (
        "--scale 255 --mean 0.7 --mean 0.5 --mean 0.6 --std 0.2 --channels 0,1,2 --percentiles 1,99.8 --tile 512x768 "
        "--lanes 2 --skip-background 220 --nodata nan --nodata-label 3 --plan strip --no-pyramid --no-keep --trial "
        "--tolerance 1e-05 --json --format .npy"
    )
    file = written(tmp_path, PEOPLE)
    typed, read = effective(*GIVEN, "-o", "x.tif", *words.split()), effective(*GIVEN, "-o", "x.tif", "--config", file)
    assert repr(read) == repr(typed)


def test_the_command_line_wins(tmp_path):
    file = written(tmp_path, 'tile = 512\nscale = [1, 2, 3]\npyramid = false\nto = "labels.tif"\nthreads = 2\n')
    words = ("-o", "other.tif", "--tile", "64", "--scale", "255", "--pyramid", "--config", file)
    assert effective(*GIVEN, *words) == effective(*GIVEN, *words[:-2], "--threads", "2")


def test_relative_paths_start_from_the_folder_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = 'to = "labels.tif"\nskip_background = "mask.png"\ntrace = "/traces/one.json"\nscratch = "../scratch"\n'
    found = effective(*GIVEN, "--config", written(tmp_path / "of", text))
    assert found["target"] == tmp_path / "of" / "labels.tif"
    assert found["skip_background"] == str(tmp_path / "of" / "mask.png")
    assert found["trace"] == Path("/traces/one.json")
    assert found["scratch"] == tmp_path / "of" / "../scratch"
    assert found["images"] == ["slide.tif"]
    printed = within("run", "--config", "of/run.toml", "--dump-config").stdout
    assert f'to = "{tmp_path}/of/labels.tif"\n' in printed
    assert f'scratch = "{tmp_path}/scratch"\n' in printed


REFUSED = {
    "unknown": ("memroy = 1", "run.toml: memroy is not an option of run; did you mean memory?"),
    "dashes": ("skip-background = 1", "skip-background is not an option of run; did you mean skip_background?"),
    "an argument": ('images = "slide.tif"', "images is not an option of run"),
    "the option itself": ('config = "other.toml"', "config is not an option of run"),
    "choice": ('plan = "stripe"', 'plan takes auto, whole, tile or strip, not "stripe"; did you mean strip?'),
    "flag": ('resume = "yes"', 'resume takes true or false, not "yes"'),
    "number as a flag": ("resume = 1", "resume takes true or false, not 1"),
    "flag as a number": ("threads = true", "threads takes an integer, not true"),
    "flag as text": ("tile = true", "tile takes text or a number, or an array of numbers, not true"),
    "fraction": ("threads = 1.5", "threads takes an integer, not 1.5"),
    "text as a number": ('nodata = "none"', 'nodata takes a number, not "none"'),
    "range": ("threads = 0", "threads = 0: "),
    "array": ("memory = [1, 2]", "memory takes text or a number, not [1, 2]"),
    "empty array": ("mean = []", "mean takes text, a number, or an array of them, not []"),
    "array of flags": ("channels = [true]", "channels takes text or a number, or an array of numbers, not [true]"),
    "number as a path": ("to = 3", "to takes the text of a path, not 3"),
    "date": ("memory = 2026-01-01", "memory takes text or a number, not 2026-01-01"),
    "table": ("[plan]\ntile = 1", "[plan] is a table"),
    "no TOML": ("plan = tile", "run.toml: not a TOML file: "),
    "twice": ("tile = 1\ntile = 2", "run.toml: not a TOML file: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_in_a_file_is_told_before_anything_is_done(tmp_path, case):
    text, told = REFUSED[case]
    done = within("run", *GIVEN, "-o", tmp_path / "labels", "--config", written(tmp_path, text))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_files_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "latin.toml").write_bytes('label_name = "Zelle é"'.encode("latin-1"))
    for name, told in (("no.toml", "No such file"), ("", "Is a directory"), ("latin.toml", "not a TOML file: 'utf-8'")):
        done = within("run", *GIVEN, "-o", tmp_path / "labels.tif", "--config", tmp_path / name)
        assert (done.returncode, done.stderr.startswith(f"error: --config {tmp_path / name}: ")) == (2, True)
        assert told in done.stderr


def test_a_name_that_is_not_unicode_cannot_be_printed():
    done = within("run", *GIVEN, "-o", os.fsdecode(b"/labels-\xff.tif"), "--dump-config")
    assert (done.returncode, done.stdout) == (2, "")
    assert "not UTF-8" in done.stderr


def test_the_example_of_the_usage_is_a_settings_file(tmp_path):
    text = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    found = effective(*GIVEN, "-o", "x.tif", "--config", written(tmp_path, text))
    assert (found["plan"], found["memory"], found["pyramid"]) == ("tile", "2GiB", False)


# --- runs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings")
    onnx_file(folder, "unet_d2").rename(folder / "unet.onnx")
    image = np.random.default_rng(0).integers(0, 255, (300, 260, 3), dtype=np.uint8)
    tifffile.imwrite(folder / "slide.tif", image, tile=(64, 64), photometric="rgb")
    return folder


def test_a_run_by_a_file_is_the_run_of_its_options(place, tmp_path):
    """The same record and the same bytes."""
    options = (
        "--scale 255 --mean 0.5,0.4,0.6 --plan tile --tile 96x128 --border reflect --skip-background 250 --format .npy"
    )
    printed = forked("run", *options.split(), "--dump-config", cwd=place)
    file = written(tmp_path, printed.stdout)
    for folder, words in (("typed", options.split()), ("read", ["--config", str(file)])):
        done = forked("run", *GIVEN, "-o", tmp_path / folder / "", *words, cwd=place)
        assert done.returncode == 0, done.stderr
    typed, read = (tmp_path / folder for folder in ("typed", "read"))
    assert (typed / "slide.npy").read_bytes() == (read / "slide.npy").read_bytes()
    records = [json.loads(record_path(folder / "slide.npy").read_text())["run"] for folder in (typed, read)]
    assert records[0] == records[1]
    assert records[0]["asked"]["tile"] == [96, 128]


def test_an_interrupted_run_is_resumed_by_its_file(place, tmp_path):
    np.save(tmp_path / "image.npy", np.random.default_rng(1).integers(0, 255, (1500, 1500, 3), dtype=np.uint8))
    written(tmp_path, 'to = "labels.tif"\nscale = 255\ntile = 96\nplan = "tile"\n')
    words = ["run", str(place / "unet.onnx"), "image.npy", "--config", "run.toml"]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, "-m", "exactile", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed,  # noqa: PLW1509
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / ".labels.tif.part").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert not (tmp_path / "labels.tif").exists()
    for more in (["--resume"], ["-o", "straight.tif"]):
        done = forked(*words, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "labels.tif").read_bytes() == (tmp_path / "straight.tif").read_bytes()
