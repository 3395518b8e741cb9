"""Load TensorRT and TensorRT-RTX on demand, and turn what they log into errors."""

from __future__ import annotations

import importlib
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NoReturn

from exactile.contract.built_engine import Backend
from exactile.errors import DeviceError, DeviceMemoryError, EngineError, ExactileError

_MODULES: dict[Backend, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_INSTALL: dict[Backend, str] = {
    "tensorrt": "pip install 'exactile[tensorrt]' (on a Jetson it comes with JetPack)",
    "tensorrt-rtx": "pip install 'exactile[rtx]'",
}
_LONGEST_DETAIL = 800
_KEPT_LINES = 200
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "out_of_memory", "alloc_failed", "insufficient memory")
_OF_THE_DEVICE = ("cudaerror", "cuda runtime", "cuda driver", "cuda initialization")


class LogLines:
    """What the library logged last, errors and warnings. Written from any thread."""

    def __init__(self) -> None:
        self._lines: deque[tuple[int, int, bool, str]] = deque(maxlen=_KEPT_LINES)
        self._numbers = count()

    def add(self, text: str, *, is_error: bool) -> None:
        self._lines.append((next(self._numbers), threading.get_ident(), is_error, " ".join(text.split())))

    def mark(self) -> int:
        """Return the number of lines so far: later lines are new."""
        return next(self._numbers)

    def since(self, mark: int) -> str:
        """Return new errors of this thread; those of all threads, or warnings, if there are none."""
        new = [line for line in list(self._lines) if line[0] > mark]
        errors = [line for line in new if line[2]]
        own = [line for line in errors if line[1] == threading.get_ident()]
        return "; ".join(line[3] for line in own or errors or new)[:_LONGEST_DETAIL]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRTLibrary:
    """A loaded module, and its only logger in this process."""

    backend: Backend
    module: Any
    logger: Any
    lines: LogLines = field(repr=False)

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @contextmanager
    def doing(self, what: str) -> Iterator[Failure]:
        """Turn what the library raises in the block into EngineError; the block calls ``failed`` if a call fails."""
        failure = Failure(what, self.lines, self.lines.mark())
        try:
            yield failure
        except ExactileError:
            raise
        except Exception as error:  # noqa: BLE001  # pybind11 raises whatever fits
            failure.failed(error)


class Failure:
    """The failure of a call into the library, from the lines that it logged meanwhile."""

    def __init__(self, doing: str, lines: LogLines, mark: int) -> None:
        self._doing, self._lines, self._mark = doing, lines, mark

    def failed(self, cause: Exception | None = None, *, silent: type[EngineError] = EngineError) -> NoReturn:
        """Raise DeviceMemoryError, DeviceError or EngineError, according to the lines; ``silent`` if there are none."""
        said = self._lines.since(self._mark)
        details = [said, " ".join(str(cause).split()) if cause else ""]
        text = "; ".join(filter(None, details)) or "it gave no reason"
        kind = _kind(text) if any(details) else silent
        if kind is DeviceMemoryError:
            raise DeviceMemoryError(
                f"the GPU's memory ran out while {self._doing}; free some, or use smaller tiles or batches: {text}"
            ) from cause
        raise kind(f"TensorRT failed while {self._doing}: {text}") from cause


def _kind(text: str) -> type[EngineError]:
    lower = text.lower()
    if any(sign in lower for sign in _OUT_OF_MEMORY):
        return DeviceMemoryError
    return DeviceError if any(sign in lower for sign in _OF_THE_DEVICE) else EngineError


_loaded: dict[Backend, TensorRTLibrary] = {}
_loading = threading.Lock()


def load_tensorrt(backend: Backend) -> TensorRTLibrary:
    """Return the library, imported at the first call. Raises DeviceError with installation advice."""
    try:
        module = importlib.import_module(_MODULES[backend])
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"the engine needs {backend}, whose Python module {_MODULES[backend]} cannot be imported "
            f"({' '.join(str(error).split())}); install it with: {_INSTALL[backend]}"
        ) from error
    with _loading:
        library = _loaded.get(backend)
        if library is None or library.module is not module:
            # The library keeps the first logger of a process, whoever passes another one later.
            lines = LogLines()
            library = TensorRTLibrary(backend=backend, module=module, logger=_logger_class(module)(lines), lines=lines)
            _loaded[backend] = library
        return library


def _logger_class(module: Any) -> Any:
    """Return a logger that prints nothing and keeps errors and warnings."""
    severity = module.ILogger.Severity
    errors = (severity.INTERNAL_ERROR, severity.ERROR)

    class Logger(module.ILogger):  # type: ignore[misc]  # the base class is known when the library is loaded
        def __init__(self, lines: LogLines) -> None:
            super().__init__()
            self._lines = lines

        def log(self, severity: Any, msg: str) -> None:
            if severity in errors or severity == module.ILogger.Severity.WARNING:
                self._lines.add(msg, is_error=severity in errors)

    return Logger
