"""Cases are preprocessed once: oriented, converted, and kept where they can be mapped into memory.

A manifest beside them holds size, time and SHA-256 of each source file. A file whose size or time
differs is hashed again, and one whose hash differs is preprocessed again.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clickseg_infer.atomic_write import make_folder, write_whole
from clickseg_infer.errors import FileError
from clickseg_infer.volume import Volume
from clickseg_train.cases import Case, LabelledObject, LoadedCase, load_case

MANIFEST = "manifest.json"
_SCHEMA = "clickseg.cases/1"


class CaseCache:
    """Preprocessed cases in a folder, mapped into memory when they are first used."""

    def __init__(
        self,
        folder: Path,
        cases: Sequence[Case],
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Preprocess what is new or has changed.

        Args:
            folder: made if its parent exists.
            cases: that will be asked for.
            report: called with (done, total) after each case.

        Raises:
            FileError: a source cannot be read, or the folder cannot be written to.
            VolumeError: as the readers do.
        """
        self._folder = folder
        self._loaded: dict[Case, LoadedCase] = {}
        make_folder(folder)
        self._entries = _read_manifest(folder / MANIFEST)
        for done, case in enumerate(cases, start=1):
            entry = self._current(case)
            if self._entries.get(_key(case)) != entry:
                self._entries[_key(case)] = entry
                content = json.dumps({"schema": _SCHEMA, "cases": self._entries}, indent=1)
                write_whole(folder / MANIFEST, content.encode())
            report(done, len(cases))

    def load(self, case: Case) -> LoadedCase:
        """The case; its arrays are read-only maps of the cache's files."""
        if case not in self._loaded:
            entry = self._entries[_key(case)]
            voxels, label = (self._map(case, part) for part in ("voxels", "label"))
            affine = np.array(entry["affine"])
            self._loaded[case] = LoadedCase(Volume(voxels, affine), label, self.objects(case))
        return self._loaded[case]

    def objects(self, case: Case) -> tuple[LabelledObject, ...]:
        """The case's objects, from the manifest."""
        found = []
        for value, box, voxels in self._entries[_key(case)]["objects"]:
            z, y, x = ((low, high) for low, high in box)
            found.append(LabelledObject(value, (z, y, x), voxels))
        return tuple(found)

    def _current(self, case: Case) -> dict[str, Any]:
        """The case's entry, after preprocessing it if that must be done."""
        known = self._entries.get(_key(case))
        sources = [
            _source(path, known["sources"][n] if known else None)
            for n, path in enumerate((case.image, case.label))
            if path is not None
        ]
        files = [self._path(case, part) for part in ("voxels", "label")]
        same = known and [s["sha256"] for s in known["sources"]] == [s["sha256"] for s in sources]
        if known and same and all(path.is_file() for path in files):
            return {**known, "sources": sources}
        loaded = load_case(case)
        for path, array in zip(files, (loaded.volume.voxels, loaded.label), strict=True):
            content = io.BytesIO()
            np.save(content, np.ascontiguousarray(array))
            write_whole(path, content.getvalue())
        return {
            "sources": sources,
            "affine": loaded.volume.affine.tolist(),
            "objects": [
                [o.value, [list(bounds) for bounds in o.box], o.voxels] for o in loaded.objects
            ],
        }

    def _path(self, case: Case, part: str) -> Path:
        return self._folder / f"{_key(case)}.{part}.npy"

    def _map(self, case: Case, part: str) -> Any:
        # A plain view: Numba compiles a kernel anew for the subclass np.memmap.
        return np.asarray(np.load(self._path(case, part), mmap_mode="r"))


def _key(case: Case) -> str:
    where = f"{os.path.abspath(case.image)}\n{case.label and os.path.abspath(case.label)}"
    return f"{case.name}-{hashlib.sha256(where.encode()).hexdigest()[:12]}"


def _source(path: Path, known: dict[str, Any] | None) -> dict[str, Any]:
    """Size, time and hash of a file; hashed only if size or time differ from what is known."""
    try:
        status = path.stat()
        seen = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        if known and all(known[key] == value for key, value in seen.items()):
            return known
        with path.open("rb") as file:
            return {**seen, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    """The entries of a manifest; none if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["cases"]) if content["schema"] == _SCHEMA else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
