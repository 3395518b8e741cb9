"""Run strips one by one on a GPU, for rows that arrive while they are scanned."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exactile.contract import DeployedModel
from exactile.cuda.protocol import Device
from exactile.engines.families import EngineFamily
from exactile.errors import CancelledError, EngineError, ExactileError
from exactile.geometry import Box, Span
from exactile.pipeline.cancellation import Cancellation
from exactile.pipeline.compute import Load
from exactile.plan.position import Position
from exactile.plan.strips import StripPlace, StripPlan, StripStep
from exactile.processors.protocol import Constants
from exactile.processors.station import Station

Array = NDArray[Any]


class DeviceStripEngine:
    """Implements ``exactile.engines.protocol.Engine`` for the strips of all bands in order, on one device.

    Each strip is done when ``infer`` returns. Owns its own station, not the device.
    """

    def __init__(
        self, model: DeployedModel, device: Device, family: EngineFamily, plan: StripPlan, constants: Constants
    ) -> None:
        self._device, self._contract = device, model.contract
        self._cancellation = Cancellation()
        self._closed = False
        self._station = Station(model, device, family, index=0, of=1)
        image = model.contract.image
        with device.current():
            self._pinned = device.memory.pinned(prod(plan.tile_shape) * image.channels * np.dtype(image.dtype).itemsize)
            try:
                self._lane = self._station.lane(
                    _uncropped(plan), 1, constants, self._cancellation, lambda _buffer: None
                )
            except BaseException:
                self._pinned.close()
                raise

    def infer(self, tile: Array, out: Array, place: StripPlace | None = None, position: Position | None = None) -> None:
        """Run the strip ``tile`` ((H, W, C)) of the band of ``place``, and fill ``out`` ((H', W') or (C', H', W')).

        Raises EngineError; CancelledError after ``cancel``.
        """
        if self._closed:
            raise EngineError("the engine is closed; open a new one")
        if place is None:
            raise EngineError("a strip engine runs strips; this is a tile")
        if position is not None:
            raise EngineError("graphs on a GPU do not take the position of a strip")
        staged = self._pinned.array[: tile.nbytes].view(tile.dtype)
        staged[:] = tile.reshape(-1)
        whole = Box(Span(0, out.shape[-2]), Span(0, out.shape[-1]))
        step = StripStep(Box(Span(0, tile.shape[0]), Span(0, tile.shape[1])), whole, whole, place, out.shape[-2])
        with self._device.current():
            ticket = self._lane.start(Load((step,), staged))
            (pixels,) = ticket.results()
            out[...] = pixels
            ticket.release()

    def cancel(self) -> None:
        """Make every later ``infer`` raise CancelledError; callable from any thread."""
        self._cancellation.cancel(CancelledError("the engine was cancelled"))

    def close(self) -> None:
        """Release everything; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        with self._device.current():
            with suppress(ExactileError):
                self._lane.drain()
            self._station.drop()
            self._pinned.close()


def _uncropped(plan: StripPlan) -> StripPlan:
    """Return ``plan`` with room for the network's whole output: the caller crops it."""
    y, x = plan.y, plan.x
    rows, columns = tuple(Span(0, output) for output in y.outputs), (Span(0, x.tile_output),) * len(x.zors)
    return replace(plan, y=replace(y, zors=rows), x=replace(x, zors=columns))
