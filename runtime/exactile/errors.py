"""Everything that exactile raises on purpose.

::

    ExactileError                  exit status 2
    ├── OptionError                an option or argument that cannot be used
    ├── ModelError                 a model that cannot be read or run
    │   ├── NotTileableError       a model whose graph has obstacles to exact tiling
    │   ├── EngineBuildError       TensorRT cannot build an engine for it
    │   └── BundleError            a bundle that is damaged, incomplete or too new
    ├── SourceError                an image that cannot be read
    ├── ChannelError               image and model disagree about channels
    ├── PlanError                  no plan fits the image, the model and the options
    │   └── BudgetError            ... within the memory budget
    ├── SinkError                  an output that cannot be written   (exit status 3)
    │   ├── OutputExistsError      ... because it is there already    (exit status 2)
    │   ├── InputOverwrittenError  ... because it would replace an input (exit status 2)
    │   └── ResumeError            an unfinished run that is not this one (exit status 2)
    ├── StreamError                rows pushed into a stream that does not take them
    ├── EngineError                the engine failed while running    (exit status 4)
    │   └── DeviceError            the GPU that was requested cannot be used, or failed
    │       └── DeviceMemoryError  ... because its memory ran out
    ├── ClusterError               a worker of a cluster failed       (exit status 4)
    └── CancelledError             somebody stopped the run           (exit status 130)

A message says what was asked, the values at odds and what to do about it.
"""

from __future__ import annotations


class ExactileError(Exception):
    """Base class. ``exit_status`` is what the command line exits with."""

    exit_status = 2


class OptionError(ExactileError):
    """An option or argument that cannot be used as given."""


class ModelError(ExactileError):
    """A model that cannot be read or run."""


class NotTileableError(ModelError):
    """A model whose graph has obstacles to exact tiling; the message lists them."""


class VerificationError(ModelError):
    """A model whose tiles differ from one pass, found by running it before it was used; the message says where."""


class EngineBuildError(ModelError):
    """TensorRT cannot build an engine for this model; the message holds what its log says."""


class BundleError(ModelError):
    """A bundle that is damaged, incomplete or too new, or whose contract and graphs contradict each other."""


class SourceError(ExactileError):
    """An image that cannot be opened or decoded."""


class ChannelError(ExactileError):
    """The image's channels are not those the model takes."""


class PlanError(ExactileError):
    """No plan fits the image, the model and the options together."""


class BudgetError(PlanError):
    """No plan fits the memory budget. ``least_bytes`` would do, as far as that is known."""

    def __init__(self, message: str, least_bytes: int | None = None) -> None:
        super().__init__(message)
        self.least_bytes = least_bytes


class SinkError(ExactileError):
    """An output that cannot be written."""

    exit_status = 3


class OutputExistsError(SinkError):
    """The output exists and may not be overwritten."""

    exit_status = 2


class InputOverwrittenError(SinkError):
    """The output is an input of the run, lies within one, or would replace a folder that holds one."""

    exit_status = 2


class ResumeError(SinkError):
    """An unfinished run cannot be resumed: it was another one, or is damaged."""

    exit_status = 2


class StreamError(ExactileError):
    """Rows that do not fit the stream they were pushed into."""


class EngineError(ExactileError):
    """The inference engine failed."""

    exit_status = 4


class DeviceError(EngineError):
    """The GPU that was requested cannot be used, or failed."""


class DeviceMemoryError(DeviceError):
    """The GPU's memory, or memory that it copies from and to, ran out."""


class ClusterError(ExactileError):
    """A worker of a cluster failed, or cannot take part; the message names it.

    ``again`` says that the same may succeed elsewhere than on the worker with the address ``worker``.
    """

    exit_status = 4

    def __init__(self, message: str, again: bool = False, worker: str = "") -> None:
        super().__init__(message, again, worker)
        self.again, self.worker = again, worker

    def __str__(self) -> str:
        return str(self.args[0])


class CancelledError(ExactileError):
    """The run was stopped before it was complete."""

    exit_status = 130
