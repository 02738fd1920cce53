"""Output files are written whole or not at all."""

import os
import tempfile
from pathlib import Path

from clickseg_infer.errors import FileError


def check_writable(path: Path) -> None:
    """Fail before the work rather than after it.

    Raises:
        FileError: the folder does not exist, or `path` is a folder itself.
    """
    if not path.parent.is_dir():
        raise FileError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise FileError(f"{path}: is a folder, not a file")


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
