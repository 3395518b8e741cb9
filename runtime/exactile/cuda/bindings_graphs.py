"""Work of a stream, captured once and launched often: CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from exactile.cuda.protocol import Stream
from exactile.cuda.scope import Kind, Scope
from exactile.cuda.status import bindings_value
from exactile.errors import DeviceError


def captured(native: Any, scope: Scope, stream: Any, work: Callable[[], Any]) -> Any:
    """Return the CUDA graph of what ``work`` puts on ``stream``. Owned by the caller.

    Other threads may go on using the driver meanwhile; in this one, what waits or allocates makes the capture fail.
    """
    doing = f"capturing the work of a stream of {scope.label}"
    mode = native.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    bindings_value(native, doing, native.cuStreamBeginCapture(stream, mode))
    try:
        work()
        return bindings_value(native, doing, native.cuStreamEndCapture(stream))
    except BaseException:
        _abandon(native, stream)
        raise


def _abandon(native: Any, stream: Any) -> None:
    """End a capture that has not ended, and drop its graph."""
    _, graph = native.cuStreamEndCapture(stream)
    if graph is not None and int(graph):
        native.cuGraphDestroy(graph)


class BindingsReplay:
    """Captured work. Owned. What the work refers to must live as long as this."""

    def __init__(self, native: Any, scope: Scope, graph: Any) -> None:
        """``graph`` is used up, also on failure."""
        self._native = native
        self._scope = scope
        doing = f"making captured work launchable on {scope.label}"
        try:
            self._executable = bindings_value(native, doing, native.cuGraphInstantiate(graph, 0))
        finally:
            destroyed = native.cuGraphDestroy(graph)
        scope.own(self, Kind.REPLAY)
        try:
            bindings_value(native, doing, destroyed)
        except DeviceError:
            with contextlib.suppress(DeviceError):
                self.close()
            raise

    def launch(self, stream: Stream) -> None:
        self._scope.use(self)
        doing = f"launching captured work on {self._scope.label}"
        bindings_value(self._native, doing, self._native.cuGraphLaunch(self._executable, stream.handle))

    def close(self) -> None:
        self._scope.release(self, self._free)

    def _free(self) -> None:
        doing = f"closing captured work of {self._scope.label}"
        bindings_value(self._native, doing, self._native.cuGraphExecDestroy(self._executable))
