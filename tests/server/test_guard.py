"""Who may ask, and from where: everything else is turned away with one line."""

import asyncio
import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from clickseg_infer.server.app import create_app
from clickseg_infer.server.guard import MOST_BODY_BYTES, Guard
from clickseg_infer.server.opening import Demo

from .conftest import ON_BALL, URL


def one_line(reply) -> str:
    detail = reply.json()["detail"]
    assert set(reply.json()) == {"detail"}
    assert isinstance(detail, str)
    assert 0 < len(detail) <= 300
    assert "\n" not in detail
    return detail


@pytest.mark.parametrize("host", ["127.0.0.1:8642", "localhost:9000", "[::1]:8642", "localhost"])
def test_our_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/about", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "192.168.0.7", "", "["]
)
def test_another_name_is_not(client: TestClient, host: str) -> None:
    for path in ("/", "/api/about"):
        reply = client.get(path, headers={"Host": host})
        assert reply.status_code == 403
        one_line(reply)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_cannot_drive_it(client: TestClient, session: str, headers: dict) -> None:
    ask = {"json": {"ijk": ON_BALL}, "headers": headers}
    assert client.post(f"{session}/clicks", **ask).status_code == 403
    assert client.get(session).json()["objects"][0]["clicks"] == []
    ask["headers"] = {"Origin": URL, "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"{session}/clicks", **ask).status_code == 200


def test_a_token_is_needed_for_everything_but_the_page(demo: Demo) -> None:
    with TestClient(Guard(create_app(demo), token="sesame"), base_url=URL) as client:
        assert client.get("/").status_code == 200
        for given in (None, "Bearer", "Bearer sesam", "Bearer sesame2", "sesame", "Bearer é"):
            headers = {} if given is None else {"Authorization": given.encode()}
            assert client.get("/api/about", headers=headers).status_code == 401
        right = {"Authorization": "Bearer sesame"}
        assert client.get("/api/about", headers=right).status_code == 200


def test_a_server_for_others_is_called_by_numbers_but_not_by_any_name(demo: Demo) -> None:
    guard = Guard(create_app(demo), token="t", any_address=True)
    with TestClient(guard, base_url="http://192.168.0.7:8642") as client:
        assert client.get("/").status_code == 200
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 403


def test_a_page_of_ours_cannot_be_framed_or_load_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/api/about", "/api/nowhere"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    "path",
    [
        "/../app.py",
        "/%2e%2e/app.py",
        "/..%2fapp.py",
        "/vendor/../../app.py",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/..%5capp.py",
    ],
)
def test_no_file_outside_the_page_is_served(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code in (403, 404)
    assert "root:" not in reply.text
    assert "fastapi" not in reply.text


@pytest.mark.parametrize(
    "name",
    [
        "../secret.nii",
        "/etc/passwd",
        "sub/../../secret.nii",
        "link.nii",
        "a\0b.nii",
        "x" * 900,
        ".",
    ],
)
def test_no_scan_outside_the_folder_is_opened(
    client: TestClient, ball_file: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = ball_file.parent
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.nii"
    secret.write_bytes(ball_file.read_bytes())
    os.symlink(secret, folder / "link.nii")
    outside = folder.parent / "secret.nii"
    outside.write_bytes(ball_file.read_bytes())
    reply = client.post("/api/sessions", json={"scan": name})
    outside.unlink()
    assert reply.status_code == 404
    one_line(reply)
    assert client.get("/api/about").json()["scans"] == ["ball.nii.gz"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"ijk": [1, 2]}, 422),
        ({"ijk": [1, 2, 3.5]}, 422),
        ({"ijk": ["1", 2, 3]}, 422),
        ({"ijk": [1, 2, True]}, 422),
        ({"ijk": [1, 2, 10**30]}, 422),
        ({"ijk": [1, 2, 3], "positive": "yes"}, 422),
        ({"ijk": [1, 2, 3], "more": 1}, 422),
        ([], 422),
        (None, 422),
        ({"ijk": [-1, 2, 3]}, 400),
        ({"ijk": [100, 40, 20]}, 400),
        ({"ijk": ON_BALL, "positive": False}, 400),
    ],
)
def test_malformed_clicks_get_one_line_and_change_nothing(
    client: TestClient, session: str, body: object, status: int
) -> None:
    reply = client.post(f"{session}/clicks", json=body)
    assert reply.status_code == status
    one_line(reply)
    assert client.get(session).json()["objects"][0]["voxels"] == 0
    assert client.post(f"{session}/clicks", json={"ijk": ON_BALL}).json()["changed"]


def test_bodies_are_bounded_with_and_without_a_length(client: TestClient, session: str) -> None:
    blob = b"x" * (MOST_BODY_BYTES + 1)
    assert client.post(f"{session}/clicks", content=blob).status_code == 413
    chunks = (blob[i : i + 1000] for i in range(0, len(blob), 1000))
    reply = client.post(f"{session}/clicks", content=chunks)
    assert reply.status_code == 413
    one_line(reply)


def test_a_length_that_is_none_is_refused(demo: Demo) -> None:
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request", "body": b""}

    headers = [(b"host", b"localhost"), (b"content-length", b"-5")]
    scope = {"type": "http", "method": "POST", "path": "/api/sessions", "headers": headers}
    asyncio.run(Guard(create_app(demo))(scope, receive, send))
    assert sent[0]["status"] == 400


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("scan.nii.gz", b"not gzip", 400),
        ("scan.nii.gz", b"\x1f\x8b\x08\x00garbage", 400),
        ("scan.nii", b"", 400),
        ("scan.nii", b"\x5c\x01\x00\x00" + b"\xff" * 400, 400),
        ("scan.exe", b"x", 400),
        ("scan.nii", b"x" * ((1 << 20) + 1), 413),
    ],
)
def test_uploads_that_are_no_scans_leave_nothing(
    client: TestClient, demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, content: bytes, status: int,
) -> None:  # fmt: skip
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    reply = client.post("/api/sessions/upload", params={"name": name}, content=content)
    assert reply.status_code == status
    assert str(scratch) not in one_line(reply)
    assert list(scratch.iterdir()) == []
    assert len(demo.registry) == 0
