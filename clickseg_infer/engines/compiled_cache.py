"""Compiled models kept between runs, in the user's cache folder.

The cache saves time and changes nothing else: what cannot be read or written is no error, and what
is not exactly as it was written is no entry. The environment variable CLICKSEG_CACHE names another
folder; empty, it turns the cache off.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clickseg_infer.atomic_write import write_whole

_VARIABLE = "CLICKSEG_CACHE"
_SUFFIX = ".compiled"
_MOST_ENTRIES = 16
_MOST_BYTES = 1 << 30
_DIGEST_SIZE = hashlib.sha256().digest_size


def entry_key(model: bytes, *circumstances: object) -> str:
    """The name of the entry for a model file's bytes, compiled under these circumstances."""
    digest = hashlib.sha256(model)
    digest.update(repr(circumstances).encode())
    return digest.hexdigest()


def read_entry(key: str) -> memoryview | None:
    """What was kept under this key, or None if that is nothing or is damaged."""
    path = _path(key)
    if path is None:
        return None
    try:
        stored = memoryview(path.read_bytes())
        os.utime(path)  # the entries that go first are those that were not used for longest
    except OSError:
        return None
    digest, compiled = stored[:_DIGEST_SIZE], stored[_DIGEST_SIZE:]
    return compiled if digest == _digest(key, compiled) else None


def write_entry(key: str, export: Callable[[], bytes]) -> None:
    """Keep a compiled model, and drop the least recently used ones beyond the cache's bounds.

    Without a cache it is not even exported.
    """
    path = _path(key)
    if path is None:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        compiled = export()
        write_whole(path, _digest(key, compiled) + compiled)
        _drop_oldest(path.parent)


def _drop_oldest(folder: Path) -> None:
    # The pattern also finds what a process that was killed left half written.
    found = [(path.stat(), path) for path in folder.glob(f"*{_SUFFIX}*")]
    found.sort(key=lambda entry: entry[0].st_mtime_ns, reverse=True)
    total = 0
    for number, (status, path) in enumerate(found):
        total += status.st_size
        if number >= _MOST_ENTRIES or total > _MOST_BYTES:
            path.unlink(missing_ok=True)


def _path(key: str) -> Path | None:
    """Where an entry lies, or None without a cache."""
    named = os.environ.get(_VARIABLE)
    if named is None:
        from platformdirs import user_cache_path

        return user_cache_path("clickseg", appauthor=False) / (key + _SUFFIX)
    return Path(named) / (key + _SUFFIX) if named else None


def _digest(key: str, compiled: bytes | memoryview) -> bytes:
    """Of the key too, so that an entry under another's name is not taken for it."""
    digest = hashlib.sha256(key.encode())
    digest.update(compiled)
    return digest.digest()
