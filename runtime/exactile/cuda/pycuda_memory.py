"""Device and pinned memory on pycuda.

pycuda's objects free themselves when the garbage collector finds them, if need be in a thread where that fails. So each
is freed explicitly, in its context, and nothing else holds one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exactile.cuda.protocol import Bytes
from exactile.cuda.scope import Kind, Scope
from exactile.cuda.sizes import check_size
from exactile.cuda.status import out_of_memory, pycuda_calls
from exactile.errors import DeviceMemoryError


class PycudaMemory:
    """Memory of one GPU."""

    def __init__(self, native: Any, scope: Scope) -> None:
        self._native = native
        self._scope = scope

    def allocate(self, size_bytes: int) -> PycudaDeviceBuffer:
        try:
            return PycudaDeviceBuffer(self._native, self._scope, size_bytes)
        except DeviceMemoryError as error:
            raise out_of_memory(error, self.free_bytes) from error

    def pinned(self, size_bytes: int) -> PycudaPinnedBuffer:
        return PycudaPinnedBuffer(self._native, self._scope, size_bytes)

    def free_bytes(self) -> int:
        self._scope.require_current()
        with pycuda_calls(self._native, f"asking for free memory of {self._scope.label}"):
            free, _ = self._native.mem_get_info()
        return int(free)


class PycudaDeviceBuffer:
    """Memory on a GPU. Owned."""

    def __init__(self, native: Any, scope: Scope, size_bytes: int) -> None:
        check_size(size_bytes)
        scope.require_current()
        self._native = native
        self._scope = scope
        self._size_bytes = size_bytes
        with pycuda_calls(native, f"allocating {size_bytes:,} bytes on {scope.label}"):
            self._allocation = native.mem_alloc(size_bytes)
        self._address = int(self._allocation)
        scope.own(self, Kind.MEMORY)

    @property
    def address(self) -> int:
        self._scope.require(self)
        return self._address

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def close(self) -> None:
        self._scope.release(self, self._free)

    def _free(self) -> None:
        with pycuda_calls(self._native, f"freeing {self._size_bytes:,} bytes on {self._scope.label}"):
            self._allocation.free()


class PycudaPinnedBuffer:
    """Page-locked host memory. Owned."""

    def __init__(self, native: Any, scope: Scope, size_bytes: int) -> None:
        check_size(size_bytes)
        scope.require_current()
        self._native = native
        self._scope = scope
        with pycuda_calls(native, f"page-locking {size_bytes:,} bytes of host memory", on_host=True):
            self._array: Bytes = native.pagelocked_empty(
                size_bytes, np.uint8, mem_flags=native.host_alloc_flags.PORTABLE
            )
        scope.own(self, Kind.MEMORY)

    @property
    def array(self) -> Bytes:
        self._scope.require(self)
        return self._array

    def close(self) -> None:
        self._scope.release(self, self._free)

    def _free(self) -> None:
        allocation: Any = self._array.base
        with pycuda_calls(self._native, f"freeing {self._array.nbytes:,} bytes of page-locked memory"):
            allocation.free()
