"""The scans that a server may open: one image, those in a folder, and what pages send."""

import os
from pathlib import Path

from clickseg_infer.errors import FileError
from clickseg_infer.server.refusals import NotFoundError

_SUFFIXES = (".nii", ".nii.gz")
_MOST_LISTED = 1000

FileMark = tuple[int, int, int]  # inode, time of change in ns, bytes: another file has another


def mark_of(stat: os.stat_result) -> FileMark:
    """What tells a file from one that took its place."""
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


class Scans:
    """Scans on disk by the names that pages know them by; nothing else can be read.

    Attributes:
        image: the scan that a page begins with, or None.
    """

    def __init__(self, image: Path | None = None, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise FileError(f"{folder}: is not a folder")
        self.image = image
        self._folder = None if folder is None else folder.resolve()

    def names(self) -> list[str]:
        """The names that may be opened, the first image first."""
        names = [] if self.image is None else [self.image_name]
        if self._folder is not None:
            found = (p for p in self._folder.rglob("*.nii*") if self._is_ours(p))
            inside = sorted(p.relative_to(self._folder).as_posix() for p in found)
            names += [name for name in inside if name not in names][:_MOST_LISTED]
        return names

    @property
    def image_name(self) -> str:
        """What pages call the first image, whatever bytes its name on disk is made of.

        In the folder it has the name that it has there, so that it is not listed twice; elsewhere
        also that of its own folder, if one of the folder's scans has the same.
        """
        if self.image is None:
            return ""
        name = Path(self.image.name)
        if self._folder is not None:
            real = self.image.resolve()
            if real.is_relative_to(self._folder):
                name = real.relative_to(self._folder)
            elif self._is_ours(self._folder / name):
                name = Path(real.parent.name) / name
        return os.fsencode(name.as_posix()).decode("utf-8", "replace")

    def path_of(self, name: str | None) -> Path:
        """The file of that name; the first image's without one.

        Raises:
            NotFoundError: no such scan, or one outside the folder.
        """
        if self.image is not None and name in (None, self.image_name):
            return self.image
        if name is None:
            raise NotFoundError("no scan was named, and the server began with none")
        if self._folder is not None and "\0" not in name:
            path = self._folder / name
            if self._is_ours(path):
                return path
        raise NotFoundError(f"there is no scan {name[:200]!r}")

    def _is_ours(self, path: Path) -> bool:
        """Whether a path, links followed, is a NIfTI file inside the folder."""
        assert self._folder is not None
        try:
            real = path.resolve()
            inside = real.is_relative_to(self._folder) and real.is_file()
            str(path).encode()  # a name that is no UTF-8 cannot be sent
        except (OSError, RuntimeError, ValueError):  # a name too long, links in a circle
            return False
        return inside and path.name.endswith(_SUFFIXES)
