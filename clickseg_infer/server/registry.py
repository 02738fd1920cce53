"""The labellings that are open: so many, so large, and none for long without a sign of life."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from clickseg_infer.server.labelling import Labelling
from clickseg_infer.server.refusals import NotFoundError, TooManyError
from clickseg_infer.server.scans import FileMark

_VOXEL_BYTES = 4  # of a scan, at most
_OWN_BYTES = 64 << 20  # of a labelling beside its scan: the network's input, patches, masks


@dataclass(frozen=True)
class Limits:
    """What one server takes on.

    Attributes:
        labellings: open at a time; each page has one.
        memory_bytes: of all their scans and sessions, about.
        upload_bytes: of one uploaded file.
        voxels: of one scan.
        idle_s: seconds without a request after which a labelling is closed.
    """

    labellings: int = 16
    memory_bytes: int = 8 << 30
    upload_bytes: int = 2 << 30
    voxels: int = 1 << 29
    idle_s: float = 1800.0


@dataclass(frozen=True)
class Opened:
    """A labelling, the file that its scan came from, and the folder to be removed with it.

    Attributes:
        mark: of the file as it was read; None where only we can change it.
    """

    labelling: Labelling
    file: Path
    scratch: TemporaryDirectory[str] | None = None
    mark: FileMark | None = None


class Registry:
    """Open labellings by key. For any thread.

    Attributes:
        limits: what it takes on.
    """

    def __init__(
        self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits or Limits()
        self._clock = clock
        self._lock = Lock()
        self._opened: dict[str, Opened] = {}
        self._seen: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._opened)

    def check_room(self, voxels: int) -> None:
        """Raise unless there is room for one more labelling, of a scan of so many voxels.

        Raises:
            TooManyError: too many are open, or the scan does not fit beside them.
        """
        self.close_idle()
        if len(self) >= self.limits.labellings:
            raise TooManyError(f"{len(self)} scans are open already; close one of their tabs")
        needed = voxels * _VOXEL_BYTES + _OWN_BYTES
        if self.memory_bytes() + needed > self.limits.memory_bytes:
            raise TooManyError(
                f"a scan of {voxels} voxels does not fit beside the {len(self)} that are open; "
                "close one of their tabs"
            )

    def memory_bytes(self) -> int:
        """About how much the open labellings hold; a scan that several share counts once."""
        with self._lock:
            opened = list(self._opened.values())
        scans = {id(o.labelling.volume): o.labelling.volume.voxels.nbytes for o in opened}
        return sum(scans.values()) + len(opened) * _OWN_BYTES

    def add(self, opened: Opened) -> str:
        """Keep a labelling; the key under which it is found, which nobody can guess.

        Raises:
            TooManyError: too many are open.
        """
        key = secrets.token_urlsafe(16)
        with self._lock:
            if len(self._opened) >= self.limits.labellings:
                raise TooManyError(f"{len(self._opened)} scans are open already")
            self._opened[key] = opened
            self._seen[key] = self._clock()
        return key

    def find(self, key: str) -> Opened:
        """The labelling of that key, which counts as a sign of life.

        Raises:
            NotFoundError: there is none, or it was closed.
        """
        self.close_idle()
        with self._lock:
            if key not in self._opened:
                raise NotFoundError("this session is not open; it may have been idle for too long")
            self._seen[key] = self._clock()
            return self._opened[key]

    def close(self, key: str) -> None:
        """Forget a labelling, and remove its folder.

        Raises:
            NotFoundError: there is none.
        """
        with self._lock:
            opened = self._opened.pop(key, None)
            self._seen.pop(key, None)
        if opened is None:
            raise NotFoundError("this session is not open")
        if opened.scratch is not None:
            opened.scratch.cleanup()

    def close_idle(self) -> None:
        """Close what has shown no sign of life for too long."""
        now = self._clock()
        with self._lock:
            idle = [k for k, seen in self._seen.items() if now - seen > self.limits.idle_s]
        for key in idle:
            try:
                self.close(key)
            except NotFoundError:
                continue  # somebody else did

    def close_all(self) -> None:
        """Close everything."""
        for key in list(self._opened):
            self.close(key)
