"""Plans tried before a long run: which are, what they may cost, and what is taken."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tifffile

from exactile.contract import DeployedModel
from exactile.errors import EngineError
from exactile.pipeline.timing import INFER, TimeSpan
from exactile.plan.choice import Choice
from exactile.planning import Planner, Wish
from exactile.session import Session
from exactile.sinks.array import ArraySink
from exactile.sinks.nothing import NoSink
from exactile.sinks.tiff.sink import TiffSink
from exactile.sources.array import ArraySource
from exactile.trial import trial
from exactile.trial.candidates import Candidate, Candidates
from exactile.trial.pace import Pace, prefix_pixels
from exactile.trial.prefix import Prefix
from exactile.trial.trial import SHARE, choose_by_trial
from exactile_converters.deploy import deploy
from exactile_converters.prepare.from_onnx import prepare_network
from tests.runs.test_resume import stopped
from tests.support.nets import onnx_bytes

PX = 20_000
AMPLE = 1 << 40


@pytest.fixture(scope="module")
def model() -> DeployedModel:
    network = prepare_network(onnx.load_from_string(onnx_bytes("unet_d4")), name="net")
    return deploy(network, image_dtype="uint8")


class Paces:
    """Stands for the machine: seconds for each pixel, by the plan's name; keeps what was tried."""

    def __init__(self, **pixel_s: float) -> None:
        self._pixel_s = pixel_s
        self.tried: list[Candidate] = []
        self.now_s = 0.0

    def __call__(self, candidate: Candidate) -> float | None:
        self.tried.append(candidate)
        pixel_s = self._pixel_s[candidate.plan.name]
        self.now_s += pixel_s * prefix_pixels(candidate.plan)
        return pixel_s

    def clock(self) -> float:
        return self.now_s


def tried(model: DeployedModel, paces: Paces, px: int = PX, budget_bytes: int = AMPLE) -> tuple[Choice, Choice]:
    """What was predicted, and what is taken."""
    planner = Planner(model, budget_bytes=budget_bytes, process_bytes=0)
    source = ArraySource(np.broadcast_to(np.uint8(0), (px, px, model.contract.image.channels)))
    choice = planner.choose(source, NoSink(), Wish())
    candidates = Candidates(planner=planner, source=source, sink=NoSink(), wish=Wish(), margin_bytes=0)
    return choice, choose_by_trial(choice, candidates, paces, clock=paces.clock)


def test_the_plan_that_is_measured_to_be_the_fastest_is_taken_and_told(model):
    for fast, slow in (("tile", "strip"), ("strip", "tile")):
        _, taken = tried(model, Paces(**{fast: 1e-6, slow: 3e-6}))
        assert taken.plan.name == fast
        assert "measured on the first steps" in taken.reason
        assert fast in taken.reason
        assert slow in taken.reason


def test_all_that_is_tried_is_a_small_share_of_the_run(model):
    paces = Paces(tile=1e-6, strip=1e-6)
    choice, _ = tried(model, paces)
    assert len(paces.tried) > 1
    computed = sum(prefix_pixels(candidate.plan) for candidate in paces.tried)
    assert computed <= SHARE * choice.plan.computed_pixels


def test_a_run_that_will_be_short_keeps_its_plan_after_one_look(model):
    paces = Paces(tile=1e-9, strip=1e-9)
    choice, taken = tried(model, paces)
    assert taken.plan is choice.plan
    assert "no trial: the run takes about" in taken.reason
    assert len(paces.tried) == 1


def test_a_small_image_is_not_tried_at_all(model):
    paces = Paces(tile=1.0, strip=1.0)
    choice, taken = tried(model, paces, px=2048)
    assert taken.plan is choice.plan
    assert "no trial: the image has fewer" in taken.reason
    assert not paces.tried


def test_every_plan_that_is_tried_fits_the_budget(model):
    paces, budget_bytes = Paces(tile=1e-6, strip=1e-6), 256 << 20
    tried(model, paces, budget_bytes=budget_bytes)
    assert paces.tried
    assert all(candidate.need.fits(budget_bytes) for candidate in paces.tried)
    assert all(candidate.predicted.needed_bytes <= budget_bytes for candidate in paces.tried)


def test_strips_in_other_numbers_of_lanes_are_tried(model):
    planner = Planner(model, budget_bytes=AMPLE, process_bytes=0, threads=2)
    source = ArraySource(np.broadcast_to(np.uint8(0), (PX, PX, model.contract.image.channels)))
    for lanes in (1, 2):
        chosen = planner.choose(source, NoSink(), Wish(plan="strip", lanes=lanes)).plan
        candidates = Candidates(planner=planner, source=source, sink=NoSink(), wish=Wish(), margin_bytes=0)
        found = candidates.beside(chosen)
        assert {one.plan.lanes for one in found if one.plan.name == "strip"} == {1, 2}


def test_a_candidate_that_fails_is_left_out_and_the_predicted_one_says_why(model):
    class Failing(Paces):
        def __call__(self, candidate: Candidate) -> float | None:
            if self.tried or self.first_fails:
                raise EngineError("no memory")
            return super().__call__(candidate)

    paces = Failing(tile=1e-6, strip=1e-6)
    paces.first_fails = False
    choice, taken = tried(model, paces)
    assert taken.plan is choice.plan
    assert "no trial: no other plan" in taken.reason
    paces.tried.clear()
    paces.first_fails = True
    with pytest.raises(EngineError):
        tried(model, paces)


def test_the_pace_leaves_out_the_first_step(model):
    planner = Planner(model, budget_bytes=AMPLE, process_bytes=0)
    source = ArraySource(np.broadcast_to(np.uint8(0), (2048, 2048, model.contract.image.channels)))
    plan = planner.choose(source, NoSink(), Wish(plan="tile", tile=(512, 512))).plan
    pace, steps = Pace(), list(plan)
    for end_s, step in zip((100.0, 101.0, 102.0), steps, strict=False):
        assert not pace.enough
        pace.tell(TimeSpan("cpu", INFER, 0.0, end_s), (step,))
    assert pace.enough
    assert pace.pixel_s == pytest.approx(1 / 512**2)


def test_a_trial_changes_no_label_and_is_left_out_where_the_plan_is_given(model, monkeypatch):
    """A real trial on a small image: thresholds are lowered, so that times do not matter."""
    monkeypatch.setattr(trial, "LEAST_PIXELS", 0)
    monkeypatch.setattr(trial, "LONG_S", 0.0)
    monkeypatch.setattr(trial, "SHARE", 1e9)
    image = np.random.default_rng(0).integers(0, 256, (12_000, 64, model.contract.image.channels), np.uint8)

    def too_little_for_one_pass() -> int:
        """By what this process holds now, which grows from run to run."""
        free, source = Session(model), ArraySource(image)
        whole = free.memory_need(free.plan(source, ArraySink(), plan="whole").plan, source, ArraySink())
        return whole.needed_bytes - 1

    def run(*, limited=True, **options):
        sink = ArraySink()
        session = Session(model, memory_bytes=too_little_for_one_pass() if limited else None)
        return session.segment(ArraySource(image), sink, **options), sink.result

    _, expected = run(limited=False, plan="whole")
    for options in ({"trial": True, "plan": "tile"}, {}):
        summary, _ = run(**options)
        assert "measured" not in summary.reason
        assert ("no trial" in summary.reason) == ("trial" in options)
    summary, found = run(trial=True)
    assert "measured on the first steps" in summary.reason
    np.testing.assert_array_equal(found, expected)


def test_a_run_whose_plan_came_from_a_trial_is_resumed_by_that_plan(model, tmp_path, monkeypatch):
    """The trial says that the other kind of plan is faster, whatever the machine; the resumed run tries nothing."""
    monkeypatch.setattr(trial, "LEAST_PIXELS", 0)
    monkeypatch.setattr(trial, "LONG_S", 0.0)
    monkeypatch.setattr(trial, "SHARE", 1e9)
    image = np.random.default_rng(0).integers(0, 256, (6000, 300, model.contract.image.channels), np.uint8)
    free, source = Session(model), ArraySource(image)
    whole = free.memory_need(free.plan(source, ArraySink(), plan="whole").plan, source, ArraySink())
    budget = whole.needed_bytes - 1
    session, calls = Session(model, memory_bytes=budget), []
    other = "tile" if session.plan(source, ArraySink()).plan.name == "strip" else "strip"
    monkeypatch.setattr(
        Prefix, "pixel_s", lambda _prefix, one, _budget: calls.append(1) or (1.0 if one.plan.name == other else 9.0)
    )
    stopped(session, image, tmp_path / "a.tif", 1, trial=True)
    assert len(calls) > 1
    calls.clear()
    sink = TiffSink(tmp_path / "a.tif", tile=32, resumable=True)
    summary = Session(model, memory_bytes=budget).segment(ArraySource(image), sink, resume=True)
    assert summary.plan == other
    assert not calls
    expected = ArraySink()
    free.segment(source, expected, plan="whole")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), expected.result)
