"""Open a scan for a page: from disk, or from what the page sent."""

import math
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

from numpy.typing import NDArray

from clickseg_infer.errors import ClicksegError, FileError, VolumeError
from clickseg_infer.files import PathLike, read_label, read_shape, read_volume
from clickseg_infer.model import Model
from clickseg_infer.server.dicom import series_to_nifti
from clickseg_infer.server.labelling import Labelling
from clickseg_infer.server.refusals import (
    ChangedError,
    NotFoundError,
    StorageError,
    TooLargeError,
)
from clickseg_infer.server.registry import Opened, Registry
from clickseg_infer.server.scans import FileMark, Scans, mark_of
from clickseg_infer.volume import Volume


class Demo:
    """What the routes work with: a model, scans, and the labellings that are open.

    Attributes:
        model: shared by all; not closed.
        scans: that may be opened.
        registry: of open labellings.
    """

    def __init__(
        self, model: Model, scans: Scans, registry: Registry, first: Volume | None = None
    ) -> None:
        """Begin with nothing open.

        Args:
            model: whose engine several threads may run.
            scans: that may be opened.
            registry: of open labellings.
            first: the volume of `scans.image`, if it has been read already. Kept.
        """
        self.model = model
        self.scans = scans
        self.registry = registry
        self._first = first
        self._volumes: WeakValueDictionary[tuple[Path, FileMark], Volume] = WeakValueDictionary()
        self._opening = Lock()  # one after the other, or two could take the same room
        if first is not None and scans.image is not None and scans.image.is_file():
            self._volumes[scans.image, mark_of(scans.image.stat())] = first

    def open_scan(self, name: str | None) -> str:
        """Open a scan that lies on disk; the key of its labelling.

        Raises:
            NotFoundError, ChangedError, TooLargeError, TooManyError, FileError, VolumeError:
                see there.
        """
        path = self.scans.path_of(name)
        shown = self.scans.image_name if name is None else name
        with self._opening:
            mark = _mark_on_disk(path, shown)
            volume = self._volumes.get((path, mark))
            if volume is None:
                volume = self._read(path, shown)
                if _mark_on_disk(path, shown) != mark:
                    raise ChangedError(f"{shown}: the file changed while it was read")
                self._volumes[path, mark] = volume
            else:
                self.registry.check_room(0)
            labelling = Labelling(self.model, volume, shown)
            return self.registry.add(Opened(labelling, path, mark=mark))

    def open_upload(self, scratch: TemporaryDirectory[str], path: Path, name: str) -> str:
        """Open a scan that a page sent; the key of its labelling, which then owns the folder.

        Raises:
            TooLargeError, TooManyError, FileError, VolumeError: see there.
        """
        return self._open_sent(scratch, path, name, from_nifti=True)

    def open_series(self, scratch: TemporaryDirectory[str], archive: Path, name: str) -> str:
        """Open a DICOM series that a page sent as a tar archive; the key of its labelling.

        Raises:
            TooLargeError, TooManyError, FileError, VolumeError: see there.
        """
        folder = Path(scratch.name) / "series"
        folder.mkdir()
        limits = self.registry.limits
        try:
            path = series_to_nifti(archive, folder, limits.voxels, limits.upload_bytes)
        except (FileError, VolumeError) as error:
            raise type(error)(f"{name}: {error}") from error
        archive.unlink()
        return self._open_sent(scratch, path, name, from_nifti=False)

    def _open_sent(
        self, scratch: TemporaryDirectory[str], path: Path, name: str, *, from_nifti: bool
    ) -> str:
        with self._opening:
            volume = self._read(path, name)
            labelling = Labelling(self.model, volume, name, from_nifti=from_nifti)
            return self.registry.add(Opened(labelling, path, scratch))

    def _read(self, path: Path, name: str) -> Volume:
        """Read a volume if there is room for it; errors call it by the name that pages know."""
        try:
            voxels, most = math.prod(read_shape(path)), self.registry.limits.voxels
            if voxels > most:
                raise TooLargeError(f"{name}: a scan may have {most} voxels, this one has {voxels}")
            self.registry.check_room(voxels)
            return read_volume(path)
        except (FileError, VolumeError) as error:
            raise _renamed(error, path, name) from error


def open_file(opened: Opened) -> tuple[BinaryIO, int]:
    """The file of a scan, to be read and closed, and its bytes.

    Raises:
        NotFoundError: it is not there any more.
        ChangedError: another one is in its place.
    """
    name = opened.labelling.name
    try:
        file = open(opened.file, "rb")  # noqa: SIM115
    except OSError as error:
        raise NotFoundError(f"{name}: the file is not there any more") from error
    stat = os.fstat(file.fileno())
    if opened.mark not in (None, mark_of(stat)):
        file.close()
        raise ChangedError(f"{name}: the file is another one by now; open the scan again")
    return file, stat.st_size


def _mark_on_disk(path: Path, name: str) -> FileMark:
    try:
        return mark_of(path.stat())
    except OSError as error:
        raise NotFoundError(f"{name}: the file is not there any more") from error


@contextmanager
def storing() -> Iterator[None]:
    """Keep what a page sends; raise StorageError if the disk does not take it."""
    try:
        yield
    except ClicksegError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StorageError(f"what was sent cannot be kept: {reason}") from error


def read_sent_labels(path: Path, name: str, like: Volume) -> NDArray[Any]:
    """The labels (z, y, x) of a mask that a page sent.

    Raises:
        FileError, VolumeError: as `read_label`; they call the file `name`.
    """
    try:
        if read_shape(path) != (like.file_grid.shape if like.file_grid else like.shape[::-1]):
            raise VolumeError(f"{path}: the mask's shape {read_shape(path)} is not the scan's")
        return read_label(path, like=like)
    except (FileError, VolumeError) as error:
        raise _renamed(error, path, name) from error


def suffix_of(name: str) -> str:
    """The suffix under which a file that a page calls `name` is kept.

    Raises:
        FileError: not that of a NIfTI file.
    """
    for suffix in (".nii.gz", ".nii"):
        if name.lower().endswith(suffix):
            return suffix
    raise FileError(f"{name[:200]}: the name must end in .nii or .nii.gz")


async def receive(chunks: AsyncIterator[bytes], path: PathLike, most: int) -> None:
    """Write what a page sends into a file.

    Raises:
        TooLargeError: more than `most` bytes.
    """
    count = 0
    with open(path, "wb") as file:
        async for chunk in chunks:
            count += len(chunk)
            if count > most:
                raise TooLargeError(f"an upload may have {most} bytes, this one has more")
            file.write(chunk)


def _renamed(error: FileError | VolumeError, path: Path, name: str) -> FileError | VolumeError:
    return type(error)(str(error).replace(str(path), name))
