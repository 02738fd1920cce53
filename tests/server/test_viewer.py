"""The viewer comes from npm when something is built, checked, with its licences; or not at all."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from clickseg_infer.server import fetch_viewer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a build needs of this repository, without a viewer."""
    unwanted = shutil.ignore_patterns("vendor", "__pycache__", "*.onnx")
    for name in ("clickseg_infer", "clickseg_train", "export", "cli"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=unwanted)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def build(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel where there is no npm."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(checkout)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PATH": "", **environment}
    )


def test_without_npm_the_runtime_is_built_with_a_warning(checkout: Path) -> None:
    result = build(checkout)
    assert result.returncode == 0, result.stderr
    assert "without the viewer" in result.stdout + result.stderr
    names = zipfile.ZipFile(next((checkout / "dist").glob("*.whl"))).namelist()
    assert "clickseg_infer/server/static/index.html" in names
    assert not any("vendor" in name for name in names)


def test_without_npm_a_release_is_not_built(checkout: Path) -> None:
    result = build(checkout, CLICKSEG_RELEASE="1")
    assert result.returncode != 0
    assert "npm is not installed" in result.stdout + result.stderr
    assert not list(checkout.glob("dist/*.whl"))


def test_what_is_there_already_goes_into_the_wheel_and_is_not_fetched(checkout: Path) -> None:
    vendor = checkout / "clickseg_infer" / "server" / "static" / "vendor"
    vendor.mkdir()
    lock = (checkout / "clickseg_infer" / "server" / "viewer" / "package-lock.json").read_bytes()
    (vendor / "stamp.txt").write_text(hashlib.sha512(lock).hexdigest())
    (vendor / "niivue.js").write_text("// as if it had been fetched")
    (vendor / "LICENSES.txt").write_text("BSD")
    result = build(checkout, CLICKSEG_RELEASE="1")
    assert result.returncode == 0, result.stderr
    names = zipfile.ZipFile(next((checkout / "dist").glob("*.whl"))).namelist()
    for name in ("niivue.js", "LICENSES.txt"):
        assert f"clickseg_infer/server/static/vendor/{name}" in names


def test_every_package_is_pinned_by_sha512_and_no_registry_is_named() -> None:
    folder = ROOT / "clickseg_infer" / "server" / "viewer"
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    assert packages["node_modules/@niivue/niivue"]["version"] == wanted["@niivue/niivue"]
    for name, package in packages.items():
        if name:
            assert package["integrity"].startswith("sha512-")
            assert "resolved" not in package


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_another_package_than_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "clickseg_infer" / "server" / "viewer", tmp_path / "viewer")
    lock = tmp_path / "viewer" / "package-lock.json"
    lock.write_text(lock.read_text().replace('"sha512-YMj', '"sha512-ZMj'))
    monkeypatch.setattr(fetch_viewer, "_LOCK", tmp_path / "viewer")
    monkeypatch.setattr(fetch_viewer, "VENDOR", tmp_path / "vendor")
    with pytest.raises(fetch_viewer.ViewerError) as refusal:
        fetch_viewer.fetch()
    assert not (tmp_path / "vendor").exists()
    if "EINTEGRITY" not in str(refusal.value):
        pytest.skip(f"the npm registry cannot be reached: {refusal.value}")


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(fetch_viewer, "_LOCK", tmp_path / "nowhere")
    monkeypatch.setattr(shutil, "which", lambda _: "npm")
    with pytest.raises(fetch_viewer.ViewerError, match="cannot be written"):
        fetch_viewer.fetch()


def test_what_is_cut_short_leaves_nothing_and_is_not_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_viewer, "VENDOR", tmp_path)
    fetch_viewer._write("niivue.js", b"whole")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        fetch_viewer._write("niivue.js", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["niivue.js"]
    assert (tmp_path / "niivue.js").read_bytes() == b"whole"
    assert not fetch_viewer.is_current()


@pytest.mark.skipif(not fetch_viewer.is_current(), reason="the viewer was not fetched")
def test_the_licences_of_all_that_is_bundled_come_along() -> None:
    text = (fetch_viewer.VENDOR / "LICENSES.txt").read_text()
    for name in (
        "NiiVue",
        "zarrita",
        "fflate",
        "gl-matrix",
        "numcodecs",
        "nifti-reader-js",
        "Blosc",
    ):
        assert f"{name}" in text
    assert text.count("Permission is hereby granted") + text.count("Redistribution") >= 10
