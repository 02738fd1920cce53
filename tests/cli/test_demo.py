"""`clickseg demo`, as far as it goes without a browser."""

import builtins
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clickseg_cli.main import main

import clickseg_infer as cs
from clickseg_infer.errors import ServerError
from clickseg_infer.server import fetch_viewer, serve


@pytest.fixture
def image(tmp_path: Path, ball_volume: cs.Volume) -> Path:
    cs.write_volume(tmp_path / "ball.nii.gz", ball_volume)
    return tmp_path / "ball.nii.gz"


def refused(capfd: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_until_it_is_told_to_end_and_leaves_nothing(
    image: Path, tiny_onnx: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", "from clickseg_cli.main import main; main()", "demo"]
    options = [str(image), "--model", str(tiny_onnx), "--port", "0", "--no-browser"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with (
        subprocess.Popen(
            [*command, *options],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=hears_everything,
        ) as process,
        ended(process),
    ):
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found
        with urllib.request.urlopen(found[0] + "api/about") as reply:
            assert json.load(reply)["scans"] == ["ball.nii.gz"]
        upload = f"{found[0]}api/sessions/upload?name=patient.nii.gz"
        sent = urllib.request.Request(upload, image.read_bytes(), method="POST")
        with urllib.request.urlopen(sent) as reply:
            assert reply.status == 201
        stalled = stalled_upload(found[0])
        end = time.monotonic() + 20
        while len(list(scratch.glob("clickseg-*"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        stalled.close()
        assert process.returncode == 0
    assert list(scratch.glob("clickseg-*")) == []


def hears_everything() -> None:
    """As from a terminal, even where these tests run under nohup or in the background."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """A process that does not outlive a test that failed."""
    try:
        yield
    finally:
        process.kill()


def stalled_upload(url: str) -> socket.socket:
    """A connection that promises a scan and sends no more than its beginning."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST /api/sessions/upload?name=b.nii HTTP/1.1\r\nHost: {host}:{port}\r\n"
    connection.sendall(f"{head}Content-Length: 100000\r\n\r\nbeginning".encode())
    return connection


def test_a_port_that_is_taken_is_one_line(
    image: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "check_viewer", lambda: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port}" in refused(capfd, "demo", image, "--port", port)


def test_without_the_viewer_it_says_how_to_get_it(
    image: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fetch_viewer, "VENDOR", tmp_path)
    (tmp_path / "niivue.js").write_text("// another version, or one that was not written whole")
    for stamp in ("", "another"):
        (tmp_path / "stamp.txt").write_text(stamp)
        assert "python -m clickseg_infer.server.fetch_viewer" in refused(capfd, "demo", image)


def test_without_the_extra_it_says_which(
    capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = builtins.__import__

    def absent(name: str, *rest: object, **more: object) -> object:
        if name.split(".")[0] == "uvicorn":
            raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
        return there(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.delitem(sys.modules, "clickseg_infer.server.serve")
    assert "pip install 'clickseg[demo]'" in refused(capfd, "demo")


@pytest.mark.parametrize(
    ("host", "given", "token"),
    [
        ("127.0.0.1", None, ""),
        ("localhost", None, ""),
        ("127.0.0.1", "own", "own"),
        ("0.0.0.0", "own", "own"),
        ("127.0.0.1", "a+b#c&d", "a%2Bb%23c%26d"),
    ],
)
def test_the_address(host: str, given: str | None, token: str) -> None:
    address = serve.bind(host, 0, given)
    port = address.listening.getsockname()[1]
    shown = "127.0.0.1" if host == "0.0.0.0" else host
    assert address.url == f"http://{shown}:{port}/" + (f"#token={token}" if token else "")
    address.listening.close()


def test_beyond_this_machine_there_is_always_a_token() -> None:
    one, two = (serve.bind("0.0.0.0", 0, None) for _ in range(2))
    assert len(one.token) >= 20
    assert one.token != two.token
    one.listening.close()
    two.listening.close()
    with pytest.raises(ServerError, match="a token"):
        serve.bind("0.0.0.0", 0, "")


@pytest.mark.parametrize("token", ["schlüssel", "two words", "line\n"])
def test_a_token_that_no_header_carries_is_refused(token: str) -> None:
    with pytest.raises(ServerError, match="plain letters"):
        serve.bind("127.0.0.1", 0, token)
