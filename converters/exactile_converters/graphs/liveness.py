"""Find when each buffer exists: from the kernel that writes it until after the last one that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exactile.contract import BytesForShape
from exactile_converters.graphs.kernels import Kernel
from exactile_converters.graphs.uses import NOTHING


@dataclass(frozen=True, slots=True)
class Allocation:
    """Buffer ``buffer`` of ``size`` starts to exist."""

    buffer: int
    size: BytesForShape


@dataclass(frozen=True, slots=True)
class Release:
    """Buffer ``buffer`` is no longer needed."""

    buffer: int


Event = Allocation | Release


def allocation_events(kernels: Sequence[Kernel], sizes: Sequence[BytesForShape]) -> list[Event]:
    """Return what the kernels, in this order, request of the allocator, without empty buffers (the caller's arrays).

    A kernel's scratch memory is allocated after its results and released before it ends.
    """
    last_read = {buffer: index for index, kernel in enumerate(kernels) for buffer in kernel.reads}
    storage = list(range(len(sizes)))  # buffer -> the buffer whose memory it uses
    events: list[Event] = []
    scratch_buffer = len(sizes)
    for index, kernel in enumerate(kernels):
        for buffer in kernel.writes:
            source = kernel.in_place_of
            if source is not None and _may_take_over(source, buffer, index, last_read, sizes):
                storage[buffer] = storage[source]
            elif sizes[buffer] != NOTHING:
                events.append(Allocation(buffer, sizes[buffer]))
        scratch = range(scratch_buffer, scratch_buffer + len(kernel.scratch))
        scratch_buffer = scratch.stop
        events += [Allocation(buffer, size) for buffer, size in zip(scratch, kernel.scratch, strict=True)]
        events += [Release(buffer) for buffer in scratch]
        taken_over = {storage[buffer] for buffer in kernel.writes if storage[buffer] != buffer}
        ending = [buffer for buffer in dict.fromkeys(kernel.reads) if last_read[buffer] == index]
        ending += [buffer for buffer in kernel.writes if buffer not in last_read]
        events += [
            Release(storage[buffer])
            for buffer in ending
            if sizes[storage[buffer]] != NOTHING and (buffer in kernel.writes or storage[buffer] not in taken_over)
        ]
    return events


def _may_take_over(
    source: int, buffer: int, index: int, last_read: dict[int, int], sizes: Sequence[BytesForShape]
) -> bool:
    return last_read[source] == index and sizes[source] == sizes[buffer] and sizes[source] != NOTHING
