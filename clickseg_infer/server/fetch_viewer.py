"""Get the viewer, NiiVue, from npm: at build time, so that nothing is fetched when it is used.

npm checks every package against the sha512 in `viewer/package-lock.json`, and refuses any other.
Uses the standard library only, because the build runs it where nothing else is installed:
`python -m clickseg_infer.server.fetch_viewer`.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

_HERE = Path(__file__).parent
_LOCK = _HERE / "viewer"
VENDOR = _HERE / "static" / "vendor"
_BUNDLE = "@niivue/niivue/dist/niivue.umd.js"
_OPTIONS = ("--ignore-scripts", "--omit=dev", "--omit=optional", "--no-audit", "--no-fund")
_WAIT_S = 120


class ViewerError(Exception):
    """The viewer cannot be had; the message says why, in one line."""


def is_current() -> bool:
    """Whether the viewer that the lock file names is there."""
    try:
        current = (VENDOR / "stamp.txt").read_text() == _stamp()
    except (OSError, UnicodeDecodeError):
        return False
    return current and (VENDOR / "niivue.js").is_file()


def fetch() -> None:
    """Put NiiVue and the licences of all that is in it into `static/vendor`.

    Raises:
        ViewerError: no npm, no registry, a package that is not the one that was locked, or a
            folder that cannot be written to.
    """
    try:
        _fetch()
    except OSError as error:
        raise ViewerError(f"the files cannot be written: {' '.join(str(error).split())}") from error


def _fetch() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ViewerError("npm is not installed")
    with TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_LOCK / name, folder)
        try:
            result = subprocess.run(
                [npm, "ci", *_OPTIONS], cwd=folder, capture_output=True, text=True, timeout=_WAIT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ViewerError(f"npm could not run: {error}") from error
        if result.returncode:
            raise ViewerError(f"npm: {' '.join(result.stderr.split())[:300]}")
        modules = Path(folder) / "node_modules"
        VENDOR.mkdir(exist_ok=True)
        _write("niivue.js", (modules / _BUNDLE).read_bytes())
        _write("LICENSES.txt", _licences(modules).encode())
        _write("stamp.txt", _stamp().encode())  # last: it says that the others are there


def _write(name: str, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = VENDOR / f".{name}.part"
    try:
        part.write_bytes(content)
        part.replace(VENDOR / name)
    finally:
        part.unlink(missing_ok=True)


def _licences(modules: Path) -> str:
    parts = [(_LOCK / "notices.txt").read_text(encoding="utf-8")]
    for path in sorted(modules.glob("**/LICENSE*")):
        name = path.parent.relative_to(modules).as_posix()
        text = path.read_text(encoding="utf-8").strip()
        parts.append(f"{name}\n{'=' * len(name)}\n\n{text}\n")
    return "\n".join(parts)


def _stamp() -> str:
    return hashlib.sha512((_LOCK / "package-lock.json").read_bytes()).hexdigest()


if __name__ == "__main__":
    try:
        fetch()
    except ViewerError as problem:
        sys.exit(f"the viewer cannot be had: {problem}")
