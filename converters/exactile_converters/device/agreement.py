"""Compare a device form with the bundle's own graph, both in ONNX Runtime on the CPU.

A wrong graph would make TensorRT build a wrong engine silently. So each form is run on noise of its own shape before it
is built. The CPU has no half-precision arithmetic: for ``fp16`` this shows that the graph is right and the effect of
its roundings, not the last digit of a GPU's result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel, StripRole
from exactile.engines.onnx_runtime import add_weights, fail, load_library, open_session, session_options
from exactile.engines.threads import compute_threads
from exactile.errors import EngineError, ModelError
from exactile_converters.device.form import DeviceForm, DevicePrecision
from exactile_converters.device.stored import stored

Array = NDArray[Any]
Arrays = dict[str, Array]

DIFFERING_SHARE = {"fp32": 1e-4, "tf32": 1e-4, "fp16": 0.05}
"""Share of pixels whose labels may differ: ties, and in half precision near-ties."""

RELATIVE_DIFFERENCE = {"fp32": 1e-4, "tf32": 1e-4, "fp16": 0.05}
"""Largest difference of a map, relative to its largest value."""


@dataclass(slots=True)
class FormAgreement:
    """The differences of a form's results: labels, or the largest difference of maps and carried rows."""

    labels: int = 0
    differing: int = 0
    max_abs: float = 0.0
    largest: float = 0.0
    maps: bool = field(default=False)

    def add(self, expected: Array, found: Array) -> None:
        if expected.dtype.kind == "u":
            self.labels += expected.size
            self.differing += int(np.count_nonzero(expected != found))
            return
        self.maps = True
        difference = np.abs(expected.astype(np.float64) - found.astype(np.float64)).max(initial=0)
        self.max_abs = max(self.max_abs, float(difference) if np.isfinite(found).all() else float("inf"))
        self.largest = max(self.largest, float(np.abs(expected).max(initial=0)))

    def holds(self, precision: DevicePrecision) -> bool:
        near = self.max_abs <= RELATIVE_DIFFERENCE[precision] * max(self.largest, 1e-6)
        return near and self.differing <= DIFFERING_SHARE[precision] * self.labels

    def __str__(self) -> str:
        parts = [f"{self.differing} of {self.labels} labels differ"] if self.labels else []
        parts += [f"max-abs {self.max_abs:.2g} at values up to {self.largest:.3g}"] if self.maps else []
        return ", ".join(parts)


def check_tile(model: DeployedModel, form: DeviceForm, precision: DevicePrecision) -> FormAgreement:
    """Run ``form`` on as many tiles of noise as it takes, and the bundle's graph on each.

    Raises ModelError where they do not agree.
    """
    name = model.contract.result.name
    images = [noise(model, form.rows[0], form.columns, seed=seed) for seed in range(form.batch)]
    values = statistics(model, images[0])
    reference = GraphSession.of_bundle(model, "tile", form.rows[0], form.columns)
    expected = [reference.run({model.contract.image.name: image, **values})[name] for image in images]
    del reference
    image = np.stack(images) if form.batch > 1 else images[0]
    found = run_form(form, form.rows[0], {model.contract.image.name: image, **values})[name]
    agreement = FormAgreement()
    wanted = np.stack(expected) if form.batch > 1 else expected[0]
    _compare(agreement, form, name, wanted, found)
    return checked(agreement, form, precision)


def check_strip(
    model: DeployedModel, form: DeviceForm, precision: DevicePrecision, carried: Mapping[str, Array]
) -> FormAgreement:
    """Run ``form`` on noise, at its least and its most rows, after the rows ``carried`` from a first strip.

    Raises ModelError where it does not agree with the bundle's own strip graph.
    """
    agreement = FormAgreement()
    for rows in sorted(set(form.rows)):
        image = noise(model, rows, form.columns, seed=1)
        feeds = {model.contract.image.name: image, **statistics(model, image)}
        if form.role != "first":
            feeds |= {f"{name}_in": array for name, array in carried.items()}
        expected = GraphSession.of_bundle(model, form.role, rows, form.columns).run(feeds)
        found = run_form(form, rows, feeds)
        for name, array in expected.items():
            _compare(agreement, form, name, array, found[name], exactly=name != model.contract.result.name)
    return checked(agreement, form, precision)


def carried_rows(model: DeployedModel, rows: int, width: int) -> Arrays:
    """Return what the bundle's ``first`` strip graph passes on from ``rows`` rows of noise, by the carries' names."""
    image = noise(model, rows, width, seed=0)
    feeds = {model.contract.image.name: image, **statistics(model, image)}
    found = GraphSession.of_bundle(model, "first", rows, width).run(feeds)
    return {name.removesuffix("_out"): array for name, array in found.items() if name != model.contract.result.name}


def noise(model: DeployedModel, height: int, width: int, *, seed: int) -> Array:
    """Return smooth noise plus fine noise, (H, W, C), over the usual range of the sample type."""
    contract, generator = model.contract, np.random.default_rng(seed)
    coarse = generator.random((-(-height // 8), -(-width // 8), contract.image.channels), np.float32)
    smooth = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    samples = np.clip(smooth + 0.1 * generator.standard_normal(smooth.shape, np.float32), 0, 1)
    dtype = np.dtype(contract.image.dtype)
    return np.ascontiguousarray((samples * (np.iinfo(dtype).max if dtype.kind == "u" else 1)).astype(dtype))


def statistics(model: DeployedModel, image: Array) -> Arrays:
    """Return offset and scale of ``image``, where the graphs have them as inputs; and values of statistics."""
    found = found_statistics(model)
    asked = model.contract.image.statistics
    if asked is None:
        return found
    samples = image.astype(np.float64).reshape(-1, image.shape[-1])
    shape = (1, -1, 1, 1)
    return found | {
        asked.offset_name: samples.mean(0).astype(np.float32).reshape(shape),
        asked.scale_name: (samples.std(0) + asked.epsilon).astype(np.float32).reshape(shape),
    }


def found_statistics(model: DeployedModel) -> Arrays:
    """Return numbers, positive like variances, for the inputs of statistics of the whole image."""
    generator = np.random.default_rng(2)
    asked = [one for level in model.levels for one in level.statistics]
    return {
        name: generator.uniform(0.5, 1.5, shape).astype(np.float32)
        for one in asked
        for name, shape in zip(one.inputs, one.shapes, strict=True)
    }


def as_device_bytes(array: Array) -> Array:
    """Return 16-bit numbers as pairs of bytes, low byte first, along a new axis."""
    if array.dtype != np.uint16:
        return array
    return np.ascontiguousarray(array).astype("<u2").view(np.uint8).reshape(*array.shape, 2)


def run_form(form: DeviceForm, rows: int, feeds: Mapping[str, Array]) -> Arrays:
    """Run ``form`` over ``rows`` rows in ONNX Runtime; ``feeds`` hold samples as stored. Raises ModelError."""
    given = {name: as_device_bytes(feeds[name]).astype(spec.dtype) for name, spec in form.inputs.items()}
    try:
        return GraphSession.of_form(form, rows).run(given)
    except EngineError as error:
        raise ModelError(f"the {form.role} graph for TensorRT cannot be run{_hint(form)}: {error}") from error


def _compare(
    agreement: FormAgreement, form: DeviceForm, name: str, expected: Array, found: Array, *, exactly: bool = False
) -> None:
    """Compare one result; ``exactly``: for samples of the image, none of which may differ."""
    expected = as_device_bytes(expected)
    if expected.shape != found.shape:
        raise ModelError(
            f"{name} should be {expected.shape}, and is {found.shape} in the graph for TensorRT{_hint(form)}"
        )
    if not (exactly and expected.dtype.kind == "u"):
        agreement.add(expected, found)
    elif not np.array_equal(expected, found):
        raise ModelError(
            f"{name} does not hold the image's samples in the graph for TensorRT; please report this model"
        )


def checked(agreement: FormAgreement, form: DeviceForm, precision: DevicePrecision) -> FormAgreement:
    """Return ``agreement`` if it holds at ``precision``. Raises ModelError otherwise."""
    if agreement.holds(precision):
        return agreement
    reason = _hint(form)
    if precision == "fp16" and not reason:
        reason = "; values may be too large or too small for half precision: build with --engine-precision fp32"
    raise ModelError(
        f"the {form.role} graph for TensorRT does not give what the bundle's graph gives: {agreement}, where "
        f"{DIFFERING_SHARE[precision]:g} of the labels and {RELATIVE_DIFFERENCE[precision]:g} of the largest value may "
        f"differ{reason}"
    )


def _hint(form: DeviceForm) -> str:
    return "; the network may have a batch of 1 written into it: build with --batch 1" if form.batch > 1 else ""


class GraphSession:
    """A graph in ONNX Runtime that is run once."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    def of_form(cls, form: DeviceForm, rows: int) -> GraphSession:
        ort = load_library()
        with stored(form.model) as given:
            options = session_options(ort, (rows, form.columns), compute_threads(None))
            source: Any = given if isinstance(given, bytes) else str(given)
            return cls(open_session(ort, source, options))

    @classmethod
    def of_bundle(cls, model: DeployedModel, role: str, rows: int, width: int) -> GraphSession:
        ort = load_library()
        options = session_options(ort, (rows, width), compute_threads(None))
        graph, weights = model.graph, model.weights
        if model.strips is not None and role != "tile":
            strip_role: StripRole = role  # type: ignore[assignment]  # it is one of the three now
            graph, weights = model.strips.graphs[strip_role].graph, model.strips.weights
            for carry in model.strips.carries:
                options.add_free_dimension_override_by_name(carry.width_name, carry.columns_at(width))
        add_weights(ort, options, weights, graph)
        return cls(open_session(ort, graph, options))

    def run(self, feeds: Mapping[str, Array]) -> Arrays:
        names = [output.name for output in self._session.get_outputs()]
        asked = {argument.name for argument in self._session.get_inputs()}
        try:
            found = self._session.run(names, {name: feed for name, feed in feeds.items() if name in asked})
        except Exception as error:  # noqa: BLE001  # its exceptions share no base class
            fail(error, "running the graph")
        return dict(zip(names, found, strict=True))
