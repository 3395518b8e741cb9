"""The speed by which times of plans are predicted."""

from __future__ import annotations

from exactile.contract import DeployedModel
from exactile.contract.tuning import TunedShape
from exactile.machine_speed.machine_name import machine_name
from exactile.machine_speed.speed import MachineSpeed, usual_speed
from exactile.plan.speed import Speed

LONG_S = 10.0
"""Runs that take longer, by usual figures, justify a second for measuring the machine, once for all runs."""


def predicted_speed(
    model: DeployedModel,
    image: tuple[int, int],
    *,
    threads: int,
    other_engine: str,
    engine_stays: bool,
    left_bytes: int,
) -> Speed:
    """Return the speed on a CPU: tuned on this machine with so many ``threads``, or by rules.

    ``image`` is (height, width). For a large image the speed of the machine was measured before, or is measured now, if
    ``left_bytes`` of memory allow it. ``other_engine`` is the name of an engine that is not ONNX Runtime. An engine
    that ``engine_stays`` has touched its memory before.
    """
    tuning, points = model.tuning, tuple[TunedShape, ...]()
    if tuning is not None and tuning.holds(machine_name(other_engine), threads):
        points = tuning.shapes
    mac = model.contract.mac_per_pixel * model.work
    touching = 0.0
    if mac > 0 and not engine_stays:
        usual = usual_speed(threads)
        is_long = image[0] * image[1] * mac >= LONG_S * usual.mac_per_s
        machine = _measured_speed(threads, left_bytes) if is_long and not other_engine else usual
        pixel_s = min((one.seconds_per_pixel for one in points), default=machine.pixel_s(mac))
        touching = 1 / machine.touched_bytes_per_s / pixel_s
    return Speed(threads=threads, points=points, touching=touching)


def _measured_speed(threads: int, left_bytes: int) -> MachineSpeed:
    """Return the measured speed of the machine, or the usual one if there is no memory for measuring it."""
    from exactile.machine_speed.measured_speed import MEASURING_BYTES, machine_speed  # few runs are long

    return machine_speed(threads) if left_bytes > MEASURING_BYTES else usual_speed(threads)
