"""Every deliberate error of clickseg, in one tree.

    ClicksegError
    ├── FileError (OSError)         a file or folder that cannot be read or written
    ├── VolumeError (ValueError)    voxels or geometry that cannot be segmented
    ├── ClickError (ValueError)     clicks or a click file that make no sense for the volume
    ├── ModelError (ValueError)     a model file that is not ours, too new, or damaged
    ├── EngineError (RuntimeError)  an engine that is absent, unsuitable, or failed
    ├── DatasetError (ValueError)   a training or evaluation folder that is incomplete
    ├── ConfigError (ValueError)    a training configuration with unknown or impossible values
    ├── CheckpointError (ValueError)  a checkpoint that is not ours or does not fit
    ├── ReplayError (RuntimeError)  a replay that does not lead to what was recorded
    ├── ServerError (RuntimeError)   the demo cannot be served, or refuses what a page asks
    ├── TrainingError (RuntimeError)  a training run that diverged
    └── ParityError (RuntimeError)  an export whose outputs differ from the network's

Each leaf is also the builtin that callers would expect. A message is one line that names
what is wrong, the value, and what is allowed; the command line prints it as it is.
"""


class ClicksegError(Exception):
    """The root: catch this to catch everything that clickseg raises on purpose."""


class FileError(ClicksegError, OSError):
    """A file or folder is missing, unreadable or cannot be written."""


class VolumeError(ClicksegError, ValueError):
    """Voxels or geometry cannot be segmented."""


class ClickError(ClicksegError, ValueError):
    """Clicks, or a click file, make no sense for the volume."""


class ModelError(ClicksegError, ValueError):
    """A model file is not ours, of a newer format, or damaged."""


class EngineError(ClicksegError, RuntimeError):
    """An engine is absent, cannot run the model, or failed while running it."""


class DatasetError(ClicksegError, ValueError):
    """A training or evaluation folder is incomplete or contradicts itself."""


class ConfigError(ClicksegError, ValueError):
    """A training configuration holds unknown keys or impossible values."""


class CheckpointError(ClicksegError, ValueError):
    """A checkpoint is not ours, damaged, or does not fit the configuration."""


class ReplayError(ClicksegError, RuntimeError):
    """A replay does not lead, or cannot lead, to the masks that were recorded."""


class ServerError(ClicksegError, RuntimeError):
    """The demo cannot be served, or refuses what a page asks of it."""


class TrainingError(ClicksegError, RuntimeError):
    """A training run diverged."""


class ParityError(ClicksegError, RuntimeError):
    """An exported model does not compute what its network computes."""


def one_line(error: BaseException) -> str:
    """An error's text on one line of at most 300 characters, for those of other libraries."""
    return " ".join(str(error).split())[:300]
