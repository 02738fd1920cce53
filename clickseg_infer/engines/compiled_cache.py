"""Compiled models and plans kept between runs, in the user's cache folder.

The cache saves time and changes nothing else: what cannot be read or written is no error, and what
is not exactly as it was written is no entry. The environment variable CLICKSEG_CACHE names another
folder; empty, it turns the cache off.

An entry is told by what it is about: a flat record that names the engine, its version, the model's
hash and every other circumstance. Its file holds a sha256 of all that follows, the length of the
record (4 bytes, little-endian), the record as JSON, and what was compiled.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.errors import FileError

About = Mapping[str, object]
"""Circumstances under which something was compiled; values that JSON can hold."""

_VARIABLE = "CLICKSEG_CACHE"
_SUFFIX = ".compiled"
_OURS = f"*{_SUFFIX}*"  # also what a process that was killed left half written
_MOST_ENTRIES = 16
_MOST_BYTES = 1 << 30
_DIGEST_SIZE = hashlib.sha256().digest_size
_LENGTH_SIZE = 4
_log = logging.getLogger("clickseg")


@dataclass(frozen=True)
class Entry:
    """One file of the cache.

    Attributes:
        path: where it lies.
        about: its record; None if that cannot be read.
        size: of the file in bytes.
        used: when it was last used, in seconds since 1970.
    """

    path: Path
    about: dict[str, Any] | None
    size: int
    used: float


def read_entry(about: About) -> memoryview | None:
    """What was compiled under these circumstances, or None if that is nothing or is damaged."""
    path = _path(about)
    if path is None:
        return None
    try:
        stored = memoryview(path.read_bytes())
        os.utime(path)  # the entries that go first are those that were not used for longest
    except OSError:
        return None
    head = _head(about)
    digest, rest = stored[:_DIGEST_SIZE], stored[_DIGEST_SIZE:]
    if digest != hashlib.sha256(rest).digest() or rest[: len(head)] != head:
        _log.warning("the cache's entry %s is damaged; it is compiled anew", path.name)
        return None
    return rest[len(head) :]


def has_entry(about: About) -> bool:
    """Whether there is an entry, damaged or not."""
    path = _path(about)
    with suppress(OSError):
        return path is not None and path.is_file()
    return False


def write_entry(about: About, export: Callable[[], bytes]) -> None:
    """Keep what was compiled, and drop the least recently used entries beyond the cache's bounds.

    Without a cache it is not even exported.
    """
    path = _path(about)
    if path is None:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        rest = _head(about) + export()
        write_whole(path, hashlib.sha256(rest).digest() + rest)
        _drop_oldest()


def list_entries() -> list[Entry]:
    """Every entry, the last used first."""
    found = []
    for path in _files(f"*{_SUFFIX}"):
        with suppress(OSError):
            status = path.stat()
            found.append(Entry(path, _record(path), status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def clear() -> int:
    """Delete every entry, and what a process that was killed left half written; how many files.

    Raises:
        FileError: some of them cannot be deleted; the others are.
    """
    count, refused = 0, None
    for path in _files(_OURS):
        try:
            path.unlink()
            count += 1
        except OSError as error:
            refused = FileError(f"{path}: cannot be deleted: {error.strerror or error}")
    if refused is not None:
        raise refused
    return count


def cache_folder() -> Path | None:
    """Where the entries lie, or None without a cache."""
    named = os.environ.get(_VARIABLE)
    if named is None:
        from platformdirs import user_cache_path

        return user_cache_path("clickseg", appauthor=False)
    return Path(named) if named else None


def _files(pattern: str) -> list[Path]:
    folder = cache_folder()
    with suppress(OSError):
        return list(folder.glob(pattern)) if folder is not None else []
    return []


def _drop_oldest() -> None:
    found = [(path.stat(), path) for path in _files(_OURS)]
    found.sort(key=lambda entry: entry[0].st_mtime_ns, reverse=True)
    total = 0
    for number, (status, path) in enumerate(found):
        total += status.st_size
        if number >= _MOST_ENTRIES or total > _MOST_BYTES:
            path.unlink(missing_ok=True)


def _path(about: About) -> Path | None:
    folder = cache_folder()
    return folder and folder / (hashlib.sha256(_head(about)).hexdigest() + _SUFFIX)


def _head(about: About) -> bytes:
    """How an entry begins: with its record, so that it is not taken for another under its name."""
    text = json.dumps(about, sort_keys=True).encode()
    return len(text).to_bytes(_LENGTH_SIZE, "little") + text


def _record(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as file:
        start = file.read(_DIGEST_SIZE + _LENGTH_SIZE)
        length = int.from_bytes(start[_DIGEST_SIZE:], "little")
        text = file.read(min(length, 1 << 16))
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
