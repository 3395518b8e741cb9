"""The file of fixed statistics: written at once, decoded strictly, every float32 as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from exactile.errors import OptionError, OutputExistsError, SinkError
from exactile.passes.fixed import FixedStatistics, read_statistics


@pytest.fixture
def statistics() -> FixedStatistics:
    values = np.random.default_rng(0).normal(size=(2, 1, 4, 1, 1)).astype(np.float32)
    return FixedStatistics(
        values={"exactile_statistic_0_mean": values[0], "exactile_statistic_0_variance": values[1]},
        model="net.onnx",
        belongs_to="ab" * 32,
        images=("one.tif", "two.tif"),
        pixels=1234,
    )


def test_a_file_gives_back_every_bit(statistics, tmp_path):
    """Also of numbers that have no short decimal form; nothing else lies in the folder."""
    odd = np.array([1e-45, -0.0, np.finfo(np.float32).max, 1 / 3], np.float32)
    given = replace(statistics, values={**statistics.values, "exactile_statistic_0_mean": odd})
    given.write(tmp_path / "s.json")
    found = read_statistics(tmp_path / "s.json")
    assert list(found.values) == list(given.values)
    for name, values in given.values.items():
        assert found.values[name].dtype == np.float32
        assert found.values[name].shape == values.shape
        assert found.values[name].tobytes() == values.tobytes()
    assert replace(found, values={}, file="") == replace(given, values={})
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
    with pytest.raises(OutputExistsError, match="--overwrite"):
        statistics.write(tmp_path / "s.json")
    statistics.write(tmp_path / "s.json", overwrite=True)
    assert read_statistics(tmp_path / "s.json").identity == statistics.identity != given.identity
    with pytest.raises(OptionError, match=r"\.json file"):
        statistics.write(tmp_path / "s.txt")
    with pytest.raises(SinkError, match="does not exist"):
        statistics.write(tmp_path / "none" / "s.json")


def changed(text: str, **entries) -> str:
    return json.dumps({**json.loads(text), **entries})


def other_value(text: str) -> str:
    file = json.loads(text)
    file["statistics"][0]["values"][0] += 0.25
    return json.dumps(file)


def fewer_values(text: str) -> str:
    file = json.loads(text)
    file["statistics"][0]["values"].pop()
    return json.dumps(file)


def twice(text: str) -> str:
    file = json.loads(text)
    file["statistics"].append(file["statistics"][0])
    return json.dumps(file)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], "no file of statistics"),
        (lambda text: "", "no file of statistics"),
        (lambda text: "[1, 2]", "no file of statistics"),
        (lambda text: changed(text, format="exactile.bundle"), "no file of statistics"),
        (lambda text: changed(text, version=2), "a newer exactile"),
        (lambda text: changed(text, version="1"), "no file of statistics"),
        (lambda text: changed(text, more=1), "damaged.*unknown field"),
        (lambda text: changed(text, pixels=-1), "damaged"),
        (lambda text: changed(text, belongs_to="0" * 64), "not those that were written"),
        (lambda text: text.replace('"shape"', '"shapes"', 1), "damaged"),
        (lambda text: changed(text, statistics=[]), "damaged"),
        (other_value, "not those that were written"),
        (fewer_values, "values for the shape"),
        (twice, "stands there twice"),
        (lambda text: text.replace('"values": [', '"values": [1e60,', 1), "damaged"),
        (lambda text: text.replace('"values": [', '"values": [NaN,', 1), "no file of statistics"),
    ],
)
def test_a_damaged_file_is_refused(statistics, tmp_path, damage, words):
    statistics.write(tmp_path / "s.json")
    text = (tmp_path / "s.json").read_text()
    (tmp_path / "s.json").write_text(damage(text))
    with pytest.raises(OptionError, match=words):
        read_statistics(tmp_path / "s.json")


def test_a_file_that_is_not_there_is_told(tmp_path):
    for path in (tmp_path / "s.json", tmp_path):
        with pytest.raises(OptionError, match="cannot be read"):
            read_statistics(path)
