"""The errors of tasks: which are worth another try, and what they become for the user."""

from __future__ import annotations

from exactile.errors import ClusterError, ExactileError

KILLED = "KilledWorker"
"""The name of Dask's exception for a task whose workers were killed."""


def may_succeed(error: BaseException) -> bool:
    """Return whether to run a task that ended so again. Dask itself does so if a worker was
    killed, a few times.
    """
    if isinstance(error, ExactileError):
        return isinstance(error, ClusterError) and error.again
    return type(error).__name__ != KILLED


def as_cluster_error(error: BaseException) -> BaseException:
    """Return an error of ours unchanged; another as one that says that a worker failed."""
    if isinstance(error, ExactileError):
        return error
    if type(error).__name__ == KILLED:
        return ClusterError(
            f"a piece of work was started several times, and each worker ended with it ({error}). What to do: look at "
            "the workers' logs; where the system ends them for their memory, give --memory, that of each worker, or "
            "fewer workers on a machine"
        )
    return ClusterError(f"a worker failed: {type(error).__name__}: {error}")
