"""The base of sinks that write tiles: pyramid levels, compression in threads, a journal for interrupted runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from exactile.errors import OptionError, SinkError
from exactile.geometry import Box
from exactile.sinks.blocks import plane_count
from exactile.sinks.files.found_file import FoundFile
from exactile.sinks.files.sink import FileSink, Part
from exactile.sinks.files.target import check_writable
from exactile.sinks.protocol import ResultSpec, WritePlan
from exactile.sinks.resume.description import check_same, described_output
from exactile.sinks.resume.journal import Journal, PartialTile, framed
from exactile.sinks.resume.restoration import Restored, packed, restore, unpacked
from exactile.sinks.resume.safekeeping import Safekeeping
from exactile.sinks.resume.unfinished import left_in_journal, take_place, unfinished_run
from exactile.sinks.tiled.memory import TilesMemory
from exactile.sinks.tiles.assembly import Placed
from exactile.sinks.tiles.encode_queue import LEAST_WORKERS, EncodeQueue, encode_workers
from exactile.sinks.tiles.grid import TileGrid
from exactile.sinks.tiles.open_pieces import OpenPieces, Piece
from exactile.sinks.tiles.pyramid import LevelTile, Pyramid, Reduce, level_grids, mean, nearest, parent
from exactile.sinks.tiles.store import EncodedTile, TileKey, TileStore

TILE_PX_LABELS = 512
TILE_PX_CHANNELS = 256  # halves the raw pixels held for tiles that straddle boxes


class KeptPart(Part, Protocol):
    """An unnamed output that a later run can find again."""

    published: bool

    def keep(self) -> None:
        """Leave it as it is."""


KeptPartT = TypeVar("KeptPartT", bound=KeptPart)


class TiledSink(FileSink[KeptPartT]):
    """Tiles are compressed and stored as soon as they are complete; only those that straddle boxes wait in memory.

    tile: edge of the tiles in pixels, a multiple of 16; 512 for labels and 256 for channels by default. workers:
    threads that compress; by default one for each core that the process may use, at most 16. pyramid: levels of half
    the size each, down to one tile; labels by nearest pixel, others by mean. resumable: an interrupted run leaves its
    finished part, and a journal of it, for a later run.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        tile: int | None,
        workers: int | None,
        pyramid: bool,
        overwrite: bool,
        resumable: bool,
    ) -> None:
        super().__init__(path, overwrite=overwrite)
        if tile is not None and (tile < 16 or tile % 16):
            raise OptionError(
                f"tiles of a file measure a multiple of 16 pixels, got {tile}. What to do: use 256 or 512"
            )
        self._tile_px = tile
        self._workers = encode_workers(workers)
        self._pyramid_wanted = pyramid
        self._resumable = resumable
        self._resume = False
        self._run: dict[str, Any] = {}
        self._done: set[Box] = set()
        self._keep = False
        self._found = FoundFile(self.path)
        self._notes: tuple[str, ...] = ()
        self._reserved = False
        self._journal: Journal | None = None
        self._queue: EncodeQueue | None = None
        self._store: TileStore | None = None
        self._pyramid: Pyramid | None = None
        self._reduce: Reduce = nearest
        self._safekeeping: Safekeeping | None = None
        self._pieces = OpenPieces()
        self._stored_tiles = 0

    @abstractmethod
    def _make_part(self, spec: ResultSpec, *, kept_name: bool, resumed: bool) -> KeptPartT:
        """Return the unnamed output: a new one, or the one that an earlier run left."""

    @abstractmethod
    def _make_store(self, part: KeptPartT, spec: ResultSpec, grids: Sequence[TileGrid], *, resumed: bool) -> TileStore:
        """Write what precedes the pixels, if it is missing; return the store for them."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """Return the options of the sink that affect bytes of the output, with versions of libraries."""

    def buffer_bytes(self, spec: ResultSpec, plan: WritePlan) -> int:
        """Return the bytes of raw tiles in assembly, tiles in the queue, codecs and means, and tile tables.

        This is for the boxes of ``plan`` row by row; they need not be aligned with the file's tiles, but rows of boxes
        that end on multiples of the tile's edge save a row of raw tiles.
        """
        return self._memory(spec).buffer_bytes(plan, self._workers)

    def spare_bytes(self, spec: ResultSpec) -> int:
        """Return the part of ``buffer_bytes`` that it can do without, with fewer threads."""
        memory = self._memory(spec)
        return memory.compressing_bytes(self._workers) - memory.compressing_bytes(min(self._workers, LEAST_WORKERS))

    def save(self, spec: ResultSpec, saved_bytes: int) -> None:
        """Use ``saved_bytes`` less than ``buffer_bytes``, as far as fewer threads allow. Call this before ``begin``."""
        memory = self._memory(spec)
        most_bytes = memory.compressing_bytes(self._workers) - saved_bytes
        while self._workers > LEAST_WORKERS and memory.compressing_bytes(self._workers) > most_bytes:
            self._workers -= 1

    def _memory(self, spec: ResultSpec) -> TilesMemory:
        return TilesMemory(
            spec=spec, grids=self._grids(spec), resumable=self._resumable, has_levels=self._has_levels(spec)
        )

    def unfinished(self) -> Mapping[str, Any] | None:
        """Return the description of an unfinished run that can be resumed. Raises SinkError while it still runs."""
        return unfinished_run(self.path, self._journal) if self._resumable else None

    def reserve(self, *, resume: bool) -> None:
        """Lock the place of the output. Raises SinkError, OutputExistsError."""
        with self._lock:
            if not self._resumable:
                return
            if self._found.damaged:
                self._notes = (f"{self._found.path.name} is damaged: statistics of the image are found again",)
            self._check_place(overwrite=self._overwrite)
            self._take(resume=resume)
            self._reserved = True

    def keep_found(self, found: Mapping[str, Any]) -> None:
        """Store findings before the result, until this is complete. Raises SinkError."""
        with self._lock:
            if self._reserved:
                self._found.write(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what an earlier run left."""
        return self._notes

    def describe(self, run: Mapping[str, Any], *, resume: bool) -> None:
        """Set what is run, as plain data, and whether an unfinished run is resumed."""
        self._run, self._resume = dict(run), resume

    def is_done(self, box: Box) -> bool:
        """Return whether ``box`` was written by the run that is resumed."""
        return box in self._done

    @property
    def keeps(self) -> bool:
        """Whether an interruption leaves what a later run can resume."""
        return self._keep or (self._reserved and self._found.exists)

    def _check_place(self, *, overwrite: bool = True) -> None:
        """Return whether the folder supports a journal. Raises SinkError, and OutputExistsError for what must not be
        lost.
        """
        check_writable(self.path, overwrite=overwrite)

    def _take(self, *, resume: bool) -> Journal:
        """Return the journal, locked. Raises OutputExistsError, SinkError."""
        if self._journal is None:
            self._check_place()
            self._journal = take_place(self.path, resume=resume, overwrite=self._overwrite)
        return self._journal

    def _open_part(self, spec: ResultSpec) -> KeptPartT:
        if not self._resumable:
            return self._make_part(spec, kept_name=False, resumed=False)
        journal = self._take(resume=self._resume)
        try:
            then = left_in_journal(self.path, journal)
            if then is not None:
                check_same(self.path, then, self._described(spec))
            self._keep = then is not None
            return self._make_part(spec, kept_name=True, resumed=self._keep)
        except BaseException:
            journal.leave()
            self._journal = None
            raise

    def _described(self, spec: ResultSpec) -> dict[str, Any]:
        import imagecodecs

        output = described_output(spec)
        grids = self._grids(spec)
        output |= self._options()
        output |= {"tile": grids[0].tile_px, "levels": len(grids), "imagecodecs": imagecodecs.__version__}
        return {**self._run, "output": output}

    def _start(self, part: KeptPartT, spec: ResultSpec) -> None:
        grids, dtype = self._grids(spec), np.dtype(spec.dtype)
        resumed = self._keep
        self._store = self._make_store(part, spec, grids, resumed=resumed)
        self._reduce = mean if spec.channels else nearest
        self._pyramid = Pyramid(grids, planes=plane_count(spec), dtype=dtype)
        self._queue = EncodeQueue(workers=self._workers)
        if self._journal is None:
            return
        found = restore(self._journal, self._store) if resumed else None
        if found is not None and found.boxes:
            self._take_up(found, grids, dtype)
        else:  # there was nothing, or all of it was damaged
            self._keep = False
            self._journal.start(self._described(spec))
        self._safekeeping = Safekeeping(self._journal, self._store)

    def _take_up(self, found: Restored, grids: Sequence[TileGrid], dtype: np.dtype[Any]) -> None:
        """Bring the sink to the state of the earlier run after its last finished box."""
        assert self._store is not None
        assert self._pyramid is not None
        assert self._coverage is not None
        assert self._spec is not None
        for box in found.boxes:
            self._coverage.add(box)
        self._done |= set(found.boxes)
        self._stored_tiles = len(found.tiles)
        planes = plane_count(self._spec)
        for part in found.parts:
            for placed in self._pyramid.put(part.part, unpacked(part, dtype)):
                self._submit_complete(placed)
        for key in sorted((key for key in found.tiles if not key.plane), key=lambda key: (key.level, key.tile)):
            level, tile = key.level, key.tile
            if (
                level + 1 < len(grids)
                and TileKey(level=level + 1, plane=0, tile=parent(grids, level, tile)) not in found.tiles
            ):
                pixels = np.stack(
                    [self._store.pixels(TileKey(level=level, plane=plane, tile=tile)) for plane in range(planes)]
                )
                stored, *completed = self._pyramid.completed(level, tile, pixels)
                for plane in range(planes):
                    stored.reduce(plane, self._reduce)
                self._submit(completed)

    def _put(self, part: KeptPartT, box: Box, planes: NDArray[Any]) -> None:  # noqa: ARG002 -- the store has the part
        assert self._pyramid is not None
        assert self._queue is not None
        for placed in self._pyramid.put(box, planes):
            if self._safekeeping is not None:
                self._pieces.came(box, placed)
            self._submit_complete(placed)
        self._queue.mark(lambda: self._delivered(box))
        if self._safekeeping is not None:
            if self._pieces.many:
                self._queue.drain()  # the previous claim may still be in progress
            if self._safekeeping.due(now=self._pieces.many):
                self._commit(self._queue, self._safekeeping)

    def _submit_complete(self, placed: Placed) -> None:
        assert self._pyramid is not None
        if placed.complete:
            self._submit(self._pyramid.completed(0, placed.tile, placed.pixels))

    def _submit(self, tiles: Iterable[LevelTile]) -> None:
        """Queue complete tiles, each before those above it: these begin when they are reduced from it."""
        assert self._queue is not None
        for tile in tiles:
            for plane in range(len(tile.pixels)):
                key = TileKey(level=tile.level, plane=plane, tile=tile.tile)
                work, deliver = partial(self._work, tile, key), partial(self._deliver, tile, key)
                if tile.level:
                    tile.when_ready(plane, self._queue.reserve(work, deliver))
                else:
                    self._queue.submit(work, deliver)

    def _work(self, tile: LevelTile, key: TileKey) -> EncodedTile:
        """Return one plane of a tile, in a thread that compresses."""
        assert self._store is not None
        tile.reduce(key.plane, self._reduce)
        return self._store.encode(key, tile.pixels[key.plane])

    def _commit(self, queue: EncodeQueue, safekeeping: Safekeeping) -> None:
        """Claim the boxes until here, once their tiles and the pieces of incomplete ones are noted."""
        for piece in self._pieces.take():
            queue.submit(partial(_framed_piece, piece), safekeeping.note, tiles=len(piece.placed.pixels))
        queue.mark(safekeeping.commit)

    def _deliver(self, tile: LevelTile, key: TileKey, encoded: EncodedTile) -> None:
        """Store a compressed plane of a tile; pieces of it that were queued were delivered earlier."""
        assert self._store is not None
        assert self._pyramid is not None
        stored = self._store.append(key, encoded)
        self._stored_tiles += 1
        # Uncompressed, the stored bytes are the pixels themselves, and wait to be written.
        if key.plane == len(tile.pixels) - 1 and isinstance(encoded.data, bytes):
            self._pyramid.stored(tile)
        if self._safekeeping is not None:
            self._safekeeping.note(framed(stored))

    def _delivered(self, box: Box) -> None:
        """Note that nothing of ``box`` is in the queue any more."""
        assert self._store is not None
        self._store.flush()
        if self._safekeeping is not None:
            self._safekeeping.reached(box)

    def _complete(self, part: KeptPartT) -> None:  # noqa: ARG002 -- the store has the part
        assert self._queue is not None
        assert self._store is not None
        self._queue.drain()
        if self._safekeeping is not None:
            self._safekeeping.check()
            if self._safekeeping.kept:  # a short run is computed again as quickly
                self._claim_all(self._queue, self._safekeeping)
        self._check_all_stored()
        self._store.complete()

    def _check_all_stored(self) -> None:
        """Check that no tile is missing: it would read as zeros. Raises SinkError."""
        assert self._spec is not None
        tiles = plane_count(self._spec) * sum(grid.count for grid in self._grids(self._spec))
        if self._stored_tiles != tiles:
            raise SinkError(
                f"{self.path}: {self._stored_tiles} of {tiles} tiles were stored; the output is incomplete and was not "
                "kept. What to do: run it again with --overwrite, without --resume, and report this"
            )

    def _release(self) -> None:
        queue, self._queue = self._queue, None
        if queue is not None:
            try:
                if self._safekeeping is not None and self._failure is None and not self._is_published():
                    self._claim_all(queue, self._safekeeping)  # computed results are kept
            except SinkError as error:
                self._failure = error
            finally:
                queue.close()
        if self._safekeeping is not None:
            self._safekeeping.close()
            self._keep = self._keep or self._safekeeping.kept
        self._pyramid = self._store = None
        self._pieces = OpenPieces()

    def _is_published(self) -> bool:
        return self._part is not None and self._part.published

    def _claim_all(self, queue: EncodeQueue, safekeeping: Safekeeping) -> None:
        """Claim all finished boxes before an early end. Raises SinkError."""
        queue.drain()
        if safekeeping.due(now=True):
            self._commit(queue, safekeeping)
        queue.drain()
        safekeeping.check()

    def _discard(self) -> None:
        super()._discard()
        if self._journal is not None:  # of a run that ended before the result began
            self._journal.leave()

    def _drop(self, part: KeptPartT) -> None:
        journal = self._journal
        self._keep = self._keep and not part.published
        if journal is not None and self._keep:
            part.keep()
            journal.close()
            return
        part.discard()
        if journal is not None:
            if part.published:
                self._found.remove()
                self._reserved = False
            journal.remove()

    def _grids(self, spec: ResultSpec) -> tuple[TileGrid, ...]:
        tile_px = self._tile_px or (TILE_PX_CHANNELS if spec.channels else TILE_PX_LABELS)
        return level_grids(spec.height, spec.width, tile_px, pyramid=self._has_levels(spec))

    def _has_levels(self, spec: ResultSpec) -> bool:  # noqa: ARG002 -- for sinks where it depends
        return self._pyramid_wanted


def _framed_piece(piece: Piece) -> bytes:
    """Return a piece as a record of the journal, in a thread that compresses."""
    box, placed = piece
    pixels = placed.pixels[(slice(None), *placed.inside)]
    return framed(PartialTile(box=box, part=placed.part, tile=placed.tile, data=packed(pixels)))
