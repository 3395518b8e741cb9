"""Device and pinned memory on cuda.bindings."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from exactile.cuda.protocol import Bytes
from exactile.cuda.scope import Kind, Scope
from exactile.cuda.sizes import check_size
from exactile.cuda.status import bindings_value, out_of_memory
from exactile.errors import DeviceMemoryError


class BindingsMemory:
    """Memory of one GPU."""

    def __init__(self, native: Any, scope: Scope) -> None:
        self._native = native
        self._scope = scope

    def allocate(self, size_bytes: int) -> BindingsDeviceBuffer:
        try:
            return BindingsDeviceBuffer(self._native, self._scope, size_bytes)
        except DeviceMemoryError as error:
            raise out_of_memory(error, self.free_bytes) from error

    def pinned(self, size_bytes: int) -> BindingsPinnedBuffer:
        return BindingsPinnedBuffer(self._native, self._scope, size_bytes)

    def free_bytes(self) -> int:
        self._scope.require_current()
        status, free, _ = self._native.cuMemGetInfo()
        doing = f"asking for free memory of {self._scope.label}"
        return int(bindings_value(self._native, doing, (status, free)))


class BindingsDeviceBuffer:
    """Memory on a GPU. Owned."""

    def __init__(self, native: Any, scope: Scope, size_bytes: int) -> None:
        check_size(size_bytes)
        scope.require_current()
        self._native = native
        self._scope = scope
        self._size_bytes = size_bytes
        doing = f"allocating {size_bytes:,} bytes on {scope.label}"
        self._address = int(bindings_value(native, doing, native.cuMemAlloc(size_bytes)))
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
        doing = f"freeing {self._size_bytes:,} bytes on {self._scope.label}"
        bindings_value(self._native, doing, self._native.cuMemFree(self._address))


class BindingsPinnedBuffer:
    """Page-locked host memory. Owned."""

    def __init__(self, native: Any, scope: Scope, size_bytes: int) -> None:
        check_size(size_bytes)
        scope.require_current()
        self._native = native
        self._scope = scope
        doing = f"page-locking {size_bytes:,} bytes of host memory"
        allocated = native.cuMemHostAlloc(size_bytes, native.CU_MEMHOSTALLOC_PORTABLE)
        self._address = int(bindings_value(native, doing, allocated, on_host=True))
        memory = (ctypes.c_uint8 * size_bytes).from_address(self._address)
        self._array: Bytes = np.ctypeslib.as_array(memory)
        scope.own(self, Kind.MEMORY)

    @property
    def array(self) -> Bytes:
        self._scope.require(self)
        return self._array

    def close(self) -> None:
        self._scope.release(self, self._free)

    def _free(self) -> None:
        doing = f"freeing {self._array.nbytes:,} bytes of page-locked memory"
        bindings_value(self._native, doing, self._native.cuMemFreeHost(self._address))
