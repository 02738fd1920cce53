"""Output files are written whole or not at all, into folders that can be made."""

import os
import tempfile
from pathlib import Path

from clickseg_infer.errors import FileError


def check_writable(path: Path, *inputs: Path | None) -> None:
    """Fail before the work rather than after it.

    Args:
        path: will be written.
        inputs: files that are read for it, and must not be overwritten.

    Raises:
        FileError: the folder does not exist or cannot be written to, or `path` is a folder itself
            or one of the inputs.
    """
    # os.path answers where Path raises, for a name that is too long among others.
    if not os.path.isdir(path.parent):
        raise FileError(f"{path}: the folder {path.parent} does not exist")
    if os.path.isdir(path):
        raise FileError(f"{path}: is a folder, not a file")
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"{path}: the folder {path.parent} cannot be written to")
    for source in inputs:
        if source is not None and _same_file(path, source):
            raise FileError(f"{path}: would overwrite the input {source}")


def make_folder(path: Path, *, parents: bool = False) -> None:
    """Make a folder where there is none; with `parents`, what it lies in too.

    Raises:
        FileError: it cannot be made.
    """
    try:
        path.mkdir(parents=parents, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be made: {error.strerror or error}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a temporary file beside it and one atomic rename.

    Raises:
        FileError: the folder does not exist or cannot be written to. Nothing is left behind.
    """
    check_writable(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def _same_file(a: Path, b: Path) -> bool:
    if os.path.realpath(a) == os.path.realpath(b):
        return True
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
