"""Turn errors of the operating system on writing into SinkErrors with a remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exactile.errors import SinkError

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, or write to another disk",
    errno.EDQUOT: "your disk quota is used up: free some space, or write to another disk",
    errno.EFBIG: "the file is larger than the file system or `ulimit -f` allows: raise the limit, or write elsewhere",
    errno.EACCES: "you may not write there: choose another folder, or change its permissions",
    errno.EPERM: "you may not write there: choose another folder, or change its permissions",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EIO: "the disk reports an error: check it, or write to another one",
}


@contextmanager
def os_errors_as_sink_errors(path: Path) -> Iterator[None]:
    """Raise SinkError naming ``path`` instead of any OSError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "check the disk and the folder, or write elsewhere")
        raise SinkError(f"cannot write {path}: {reason}. What to do: {remedy}") from error
