"""Take rows while the camera moves, and return results as soon as they are final."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from exactile.contract import Contract
from exactile.engines.protocol import Engine
from exactile.errors import ChannelError, StreamError
from exactile.geometry import Box, Span
from exactile.pipeline.staging import stage_tile
from exactile.pipeline.stored_values import StoredValues
from exactile.plan.arriving import ArrivingRows, ArrivingStrip
from exactile.plan.border import Border
from exactile.plan.position import Position, position_of
from exactile.plan.strips import StripPlace
from exactile.plan.tiles import AxisTiles
from exactile.sinks.protocol import ResultSpec, Sink
from exactile.sinks.spool import SpoolingSink
from exactile.sources.protocol import Identity, ReadCount, ReadPlan, Source

Array = NDArray[Any]
Result = tuple[int, Array]
"""The first row of a piece of the result, and the piece: (rows, W') labels or (C', rows, W') maps."""


class RowStream:
    """An image that arrives in rows; created by ``Session.stream``, used as a context manager.

    ``push`` takes any number of rows, ``close`` ends the image; both return the results that became final, in order.
    Leaving the ``with`` block closes. Memory holds the rows that wait for their strip, the carries and the engine,
    whatever the height. Everything is computed in the caller's thread, inside ``push`` and ``close``.
    """

    def __init__(
        self,
        *,
        contract: Contract,
        rows: ArrivingRows,
        columns: AxisTiles,
        border: Border,
        engine: Callable[[], Engine],
        whole: Callable[[Source], Array],
        sink: Sink | None,
        height: int | None,
    ) -> None:
        self._contract, self._rows, self._columns, self._border = contract, rows, columns, border
        self._values = StoredValues(contract.result)
        self._open_engine, self._whole = engine, whole
        self._engine: Engine | None = None
        self._sink: Sink | None = sink
        self._height = height
        image = contract.image
        self._kept = KeptRows(width=columns.domain.image_size, channels=image.channels, dtype=np.dtype(image.dtype))
        self._most_below = rows.most_below
        self._state = "open"
        if sink is not None:
            self._sink = sink if height is not None else SpoolingSink(sink)
            self._sink.begin(self._spec(columns, height or self._rows.least_height))

    @property
    def pushed_rows(self) -> int:
        """Rows of the image so far."""
        return self._rows.arrived

    def push(self, rows: Array) -> list[Result]:
        """Take the next rows, (rows, W, C), or (rows, W) of one channel; any number. Return what became final.

        Raises StreamError for rows of another width or type, and after ``close``; ChannelError; EngineError; SinkError.
        """
        self._check_open()
        rows = self._checked(rows)
        try:
            results = []
            # Strip by strip, so that however many rows come at once, few of them are kept.
            for start in range(0, max(1, len(rows)), self._step):
                self._kept.add(rows[start : start + self._step])
                self._rows.arrived = self._kept.height
                results += [result for strip in self._rows.ready() if (result := self._run(strip)) is not None]
                self._kept.forget(min(self._rows.first_needed, self._kept.height - self._most_below - 1))
        except BaseException:
            self.abort()
            raise
        return results

    def close(self) -> list[Result]:
        """End the image: return the rest of the result, and complete the sink. Safe to call twice."""
        if self._state != "open":
            return []
        try:
            if self._height is not None and self._kept.height != self._height:
                raise StreamError(f"{self._kept.height} rows were pushed where height={self._height} was announced")
            results = self._finish() if self._kept.height else []
            if self._sink is not None and not self._kept.height:
                raise StreamError("no rows were pushed: there is nothing to write")
            if self._sink is not None:
                self._sink.finish()
        except BaseException:
            self.abort()
            raise
        self._state = "closed"
        self._release()
        return results

    def abort(self) -> None:
        """Give up: leave nothing behind."""
        self._state = "aborted"
        if self._sink is not None:
            self._sink.abort()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._state == "open":
            self.abort()

    @property
    def _step(self) -> int:
        return max(64, self._columns.domain.geometry.stride)

    def _finish(self) -> list[Result]:
        if self._rows.too_low:
            return [self._give(0, self._whole(self._kept))]
        return [result for strip in self._rows.rest() if (result := self._run(strip)) is not None]

    def _run(self, strip: ArrivingStrip) -> Result | None:
        """Run all bands of one strip and return the result; None if none of its rows belong to the result."""
        self._engine = self._engine or self._open_engine()
        image, result, columns = self._contract.image, self._contract.result, self._columns
        front = (result.channels,) if result.channels else ()
        whole = np.empty((*front, strip.zor.length, columns.domain.result_size), result.dtype)
        tile = np.empty((strip.rows.length, columns.tile, image.channels), image.dtype)
        out = np.empty((*front, strip.output_rows, columns.tile_output), result.dtype)
        rows = slice(strip.crop, strip.crop + strip.zor.length)
        for band, (span, zor, crop) in enumerate(zip(columns.tile_spans, columns.zors, columns.crops, strict=True)):
            stage_tile(self._kept, Box(strip.rows, span), self._border, tile)
            self._engine.infer(tile, out, StripPlace(strip.role, band), self._position(Box(strip.rows, span)))
            whole[..., zor.start : zor.stop] = out[..., rows, crop : crop + zor.length]
        return self._give(strip.zor.start, whole) if strip.zor.length else None

    def _position(self, box: Box) -> Position | None:
        """Return the position of a strip, for graphs that take it: then the height is known."""
        rows = self._rows.domain_of(self._height or self._kept.height)
        rows.check_positions()
        placed = rows.geometry.placed or self._columns.domain.geometry.placed
        return position_of(rows, self._columns.domain, box) if placed else None

    def _give(self, first: int, piece: Array) -> Result:
        rows, columns = piece.shape[-2:]
        box = Box(Span(first, first + rows), Span(0, columns))
        piece = self._values.take(box, piece)
        if self._sink is not None:
            self._sink.write(box, piece)
        return first, piece

    def _spec(self, columns: AxisTiles, height: int) -> ResultSpec:
        result = self._contract.result
        rows = self._rows.result_rows(height)
        return ResultSpec(
            height=rows, width=columns.domain.result_size, channels=result.channels, dtype=result.stored_dtype
        )

    def _checked(self, rows: Array) -> Array:
        """Return the rows as (rows, W, C)."""
        rows = np.asarray(rows)
        if rows.ndim == 2 and self._kept.channels == 1:
            rows = rows[..., None]
        if rows.ndim != 3:
            raise StreamError(f"rows of shape {rows.shape} were pushed; (rows, width, channels) is expected")
        if rows.shape[1] != self._kept.width:
            raise StreamError(f"rows of {rows.shape[1]} pixels were pushed into a stream of width {self._kept.width}")
        if rows.shape[2] != self._kept.channels:
            raise ChannelError(f"rows of {rows.shape[2]} channel(s) were pushed; the model takes {self._kept.channels}")
        if rows.dtype != self._kept.dtype:
            raise StreamError(f"rows of {rows.dtype} were pushed into a stream of {self._kept.dtype}")
        if self._height is not None and self._kept.height + len(rows) > self._height:
            raise StreamError(f"{self._kept.height + len(rows)} rows were pushed; height={self._height} was announced")
        return rows

    def _check_open(self) -> None:
        if self._state != "open":
            raise StreamError(f"rows were pushed into a stream that is {self._state}; open a new one")

    def _release(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self._kept.forget(self._kept.height)


class KeptRows:
    """The arrived rows that are still needed, as a source whose height grows."""

    def __init__(self, *, width: int, channels: int, dtype: np.dtype[Any]) -> None:
        self.height, self.width, self.channels, self.dtype = 0, width, channels, dtype
        self.pixel_size_um: tuple[float, float] | None = None
        self._first = 0
        self._pieces: list[Array] = []

    def add(self, rows: Array) -> None:
        """Append a copy of ``rows``: the caller may reuse its array."""
        if len(rows):
            self._pieces.append(np.array(rows))
            self.height += len(rows)

    def forget(self, before: int) -> None:
        """Drop rows before ``before``, which are not needed any more."""
        while self._pieces and self._first + len(self._pieces[0]) <= before:
            self._first += len(self._pieces.pop(0))

    def read(self, box: Box, out: Array) -> None:
        """Copy ``box``, of rows that are kept, to ``out``."""
        start = self._first
        for piece in self._pieces:
            rows = Span(start, start + len(piece)).intersect(box.y)
            if rows.length:
                there = out[rows.start - box.y.start : rows.stop - box.y.start]
                there[...] = piece[rows.start - start : rows.stop - start, box.x.start : box.x.stop]
            start += len(piece)

    def cache_bytes(self, plan: ReadPlan) -> int:  # noqa: ARG002 -- the seam's signature
        """Return 0: nothing is decoded."""
        return 0

    def prepare(self, plan: ReadPlan, *, cache_bytes: int) -> None:
        """Nothing to prepare."""

    def count(self) -> ReadCount:
        """Return no chunks."""
        return ReadCount(chunks_decoded=0, chunks_stored=0)

    def identity(self) -> Identity:
        """Return only the form of the rows: nothing else is known of them later."""
        return {"kind": "rows", "width": self.width, "channels": self.channels, "dtype": self.dtype.name}

    def close(self) -> None:
        """Nothing to release."""
