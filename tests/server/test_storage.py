"""What becomes of files: of scans on disk that change, and of what pages send."""

import asyncio
import gzip
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from stand_ins import make_ball

import clickseg_infer as cs
from clickseg_infer.errors import FileError
from clickseg_infer.server import app as routes
from clickseg_infer.server.app import create_app
from clickseg_infer.server.guard import Guard
from clickseg_infer.server.opening import Demo
from clickseg_infer.server.registry import Limits, Registry
from clickseg_infer.server.scans import Scans

from .conftest import URL
from .test_guard import one_line


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_scan_that_was_replaced_is_read_anew(
    client: TestClient, demo: Demo, session: str, ball_file: Path
) -> None:
    before = ball_file.read_bytes()
    assert client.get(f"{session}/scan").content == before
    cs.write_volume(ball_file, make_ball(12.0, (20, 30, 40)))
    old = client.get(f"{session}/scan")
    assert old.status_code == 409
    assert "ball.nii.gz" in one_line(old)
    state = client.post("/api/sessions", json={}).json()
    assert state["shape"] == [40, 30, 20]
    scan = client.get(f"/api/sessions/{state['session']}/scan")
    assert scan.content == ball_file.read_bytes() != before


def test_a_scan_that_was_removed_is_404(client: TestClient, session: str, ball_file: Path) -> None:
    ball_file.unlink()
    for reply in (client.get(f"{session}/scan"), client.post("/api/sessions", json={})):
        assert reply.status_code == 404
        assert "ball.nii.gz" in one_line(reply)


def test_a_folder_that_goes_between_lookup_and_reply_is_404(
    client: TestClient, demo: Demo, ball_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = client.post("/api/sessions/upload?name=b.nii.gz", content=ball_file.read_bytes())
    key = sent.json()["session"]
    find = demo.registry.find

    def find_and_lose(key: str) -> object:
        opened = find(key)
        shutil.rmtree(opened.file.parent)
        return opened

    monkeypatch.setattr(demo.registry, "find", find_and_lose)
    reply = client.get(f"/api/sessions/{key}/scan")
    assert reply.status_code == 404
    one_line(reply)


@pytest.mark.parametrize("path", ["upload?name=b.nii", "series/upload?name=s"])
def test_a_full_disk_is_one_line(
    client: TestClient, scratch: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(routes, "receive", full)
    reply = client.post(f"/api/sessions/{path}", content=b"x" * 1000)
    assert reply.status_code == 507
    assert "No space left on device" in one_line(reply)
    assert list(scratch.iterdir()) == []


def ask(demo: Demo, path: str, messages: list[dict]) -> list[dict]:
    """Send a request by hand, whose client is gone after these messages."""
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    async def feed() -> AsyncIterator[dict]:
        for message in messages:
            yield message
        while True:
            yield {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/api/sessions{path}",
        "query_string": b"name=b.nii.gz",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    asyncio.run(Guard(create_app(demo))(scope, feed().__anext__, send))
    return sent


def test_a_client_that_goes_during_an_upload_is_no_error(demo: Demo, scratch: Path) -> None:
    ask(demo, "/upload", [{"type": "http.request", "body": b"half", "more_body": True}])
    assert list(scratch.iterdir()) == []
    assert len(demo.registry) == 0


@pytest.mark.parametrize("path", ["", "/upload"])
def test_a_client_that_is_gone_once_its_scan_is_read_leaves_no_session(
    demo: Demo, scratch: Path, ball_file: Path, path: str
) -> None:
    body = ball_file.read_bytes() if path else b"{}"
    ask(demo, path, [{"type": "http.request", "body": body, "more_body": False}])
    assert len(demo.registry) == 0
    assert list(scratch.iterdir()) == []


def test_what_nobody_expected_is_one_line_and_in_the_log(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.scans, "names", lambda: 1 / 0)
    with TestClient(create_app(demo), base_url=URL, raise_server_exceptions=False) as client:
        reply = client.get("/api/about")
    assert reply.status_code == 500
    one_line(reply)
    with TestClient(create_app(demo), base_url=URL) as client, pytest.raises(ZeroDivisionError):
        client.get("/api/about")  # what the server logs, with its traceback


def test_names_that_no_page_can_be_told_are_left_out(
    shared_model: cs.Model, ball_file: Path
) -> None:
    odd = os.fsdecode(os.fsencode(ball_file.parent) + b"/odd\xff.nii.gz")
    os.link(ball_file, odd)
    assert Scans(None, ball_file.parent).names() == ["ball.nii.gz"]
    demo = Demo(shared_model, Scans(Path(odd)), Registry(Limits()))
    with TestClient(create_app(demo), base_url=URL) as client:
        (name,) = client.get("/api/about").json()["scans"]
        assert client.post("/api/sessions", json={"scan": name}).json()["scan"] == name


def test_a_scan_of_the_folder_that_has_the_first_images_name_can_be_opened(
    shared_model: cs.Model, ball_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    (folder / "inside").mkdir(parents=True)
    cs.write_volume(folder / "ball.nii.gz", make_ball(5.0, (8, 9, 10)))
    cs.write_volume(folder / "inside" / "b.nii.gz", make_ball(5.0, (8, 9, 10)))
    scans = Scans(ball_file, folder)
    first, second, _ = scans.names()
    assert (first, second) == (f"{ball_file.parent.name}/ball.nii.gz", "ball.nii.gz")
    assert [scans.path_of(n) for n in (None, first, second)] == [
        ball_file,
        ball_file,
        folder / "ball.nii.gz",
    ]
    inside = Scans(folder / "inside" / "b.nii.gz", folder)
    assert inside.names() == ["inside/b.nii.gz", "ball.nii.gz"]


def test_what_lies_behind_the_voxels_is_bounded(tmp_path: Path) -> None:
    cs.write_volume(tmp_path / "b.nii", make_ball(3.0, (8, 8, 8)))
    content = (tmp_path / "b.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(content + bytes(1000)))
    np.testing.assert_array_equal(
        cs.read_volume(path).voxels, cs.read_volume(tmp_path / "b.nii").voxels
    )
    path.write_bytes(gzip.compress(content + bytes(4 << 20)))
    with pytest.raises(FileError, match="behind the voxels"):
        cs.read_volume(path)
