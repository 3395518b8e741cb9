"""The memory of ONNX Runtime's activations: one region for the whole process, reserved before use.

By default each session of ONNX Runtime grows its own heap piece by piece; how much of it becomes resident depends on
the pieces, and with memory patterns enabled it doubles at the second run. Here all sessions share one allocator with
one region. The resident memory is then what placing the buffers in a single region needs, and sessions that run in turn
(the three graphs of a strip plan) share it.

The region is twice as large as what will be used: then the unused rest is always the largest free piece, and best-fit
placement does not depend on where the region ends. Untouched memory is not resident; only the allocator's own table is,
8 bytes for each 256 bytes of region.
"""

from __future__ import annotations

import threading
from typing import Any

from exactile.errors import EngineError

MIB = 1 << 20
# A free remainder from this size on becomes its own piece: no unused memory is handed out.
SPLIT_REST_BYTES = 4096
REGION_PER_RESIDENT_BYTE = 2
TABLE_BYTES_PER_REGION_BYTE = 8 / 256
RESIDENT_PER_USED_BYTE = 1 / (1 - REGION_PER_RESIDENT_BYTE * TABLE_BYTES_PER_REGION_BYTE)
"""Overhead of placing buffers, the table included: 1.067."""

# ONNX has no "allocate" operator. Gather allocates its result, (n, l), before it looks at the indices, and an index
# out of range makes it stop there: a region of that size, never touched. As text:
#   reserve (float[1, l] d, int64[n] i) => (float[n, l] o) { o = Gather(d, i) }
_RESERVE_GRAPH = (
    b'\x08\x08:[\n\x11\n\x01d\n\x01i\x12\x01o"\x06Gather\x12\x07reserveZ\x14\n\x01d\x12\x0f\n\r\x08\x01\x12\t'
    b"\n\x02\x08\x01\n\x03\x12\x01lZ\x10\n\x01i\x12\x0b\n\t\x08\x07\x12\x05\n\x03\x12\x01nb\x15\n\x01o\x12\x10"
    b"\n\x0e\x08\x01\x12\n\n\x03\x12\x01n\n\x03\x12\x01lB\x04\n\x00\x10\r"
)


class SharedArena:
    """The process's arena. Each user reserves what it needs; the region is as large as the largest reservation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: Any = None
        self._reserved: dict[int, int] = {}
        self._region_bytes = 0

    def reserve(self, user: object, activation_bytes: int) -> None:
        """Reserve room for ``activation_bytes`` of resident memory until ``user`` calls ``release``.

        Raises EngineError if the system refuses the address space.
        """
        with self._lock:
            if self._session is None:
                self._session = _open_reserving_session()
            wanted = -(-activation_bytes * REGION_PER_RESIDENT_BYTE // MIB) * MIB
            if wanted > self._region_bytes:
                self._shrink()
                self._extend(wanted)
                self._region_bytes = wanted
            self._reserved[id(user)] = wanted

    def release(self, user: object) -> None:
        """Drop the user's reservation; the last one returns the region to the system."""
        with self._lock:
            if self._reserved.pop(id(user), None) is not None and not self._reserved:
                self._shrink()
                self._region_bytes = 0

    def _extend(self, region_bytes: int) -> None:
        import numpy as np

        try:
            row = np.zeros((1, MIB // 4), np.float32)
            out_of_range = np.full(region_bytes // MIB, 1, np.int64)
            self._session.run(None, {"d": row, "i": out_of_range})
        except Exception as error:
            if "out of data bounds" in str(error):
                return
            raise EngineError(
                f"cannot reserve {region_bytes // MIB} MiB of address space for the network's activations; "
                "lower --memory or the tile size, or raise the limit (ulimit -v, vm.overcommit_memory): "
                + " ".join(str(error).split())
            ) from error

    def _shrink(self) -> None:
        """Return every unused region to the system."""
        import numpy as np
        import onnxruntime as ort

        options = ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._session.run(None, {"d": np.zeros((1, 1), np.float32), "i": np.zeros(1, np.int64)}, options)


def share_allocator(options: Any) -> None:
    """Make the session with these ``onnxruntime.SessionOptions`` allocate activations in the shared arena."""
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False  # planned reuse keeps dead buffers: measured up to 1.5x
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")


def _open_reserving_session() -> Any:
    import onnxruntime as ort

    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    same_as_requested = 1
    config = {"arena_extend_strategy": same_as_requested, "max_dead_bytes_per_chunk": SPLIT_REST_BYTES}
    try:
        ort.create_and_register_allocator(memory, ort.OrtArenaCfg(config))
    except Exception as error:
        # Another library in this process registered one first; reserving in that one works as well.
        if "registered" not in str(error):
            raise EngineError(f"ONNX Runtime refuses a shared allocator: {' '.join(str(error).split())}") from error
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    share_allocator(options)
    return ort.InferenceSession(_RESERVE_GRAPH, options, providers=["CPUExecutionProvider"])


SHARED_ARENA = SharedArena()


class HeldRegion:
    """Keep the region of the arena from one engine to the next, so that its pages are touched once."""

    def __init__(self) -> None:
        self._held_bytes = 0

    def before(self, activation_bytes: int, most_bytes: int) -> int:
        """Prepare for an engine that needs ``activation_bytes``; the region may take ``most_bytes``. Return what it
        takes.

        Raises EngineError if the system refuses the address space.
        """
        if self._held_bytes > most_bytes:
            self.release()
        self._held_bytes = max(self._held_bytes, activation_bytes)
        SHARED_ARENA.reserve(self, self._held_bytes)
        return self._held_bytes

    def release(self) -> None:
        """Return the region, unless an engine uses it; safe to call twice."""
        SHARED_ARENA.release(self)
        self._held_bytes = 0
