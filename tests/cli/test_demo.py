"""`clickseg demo`, as far as it goes without a browser."""

import builtins
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from clickseg_cli.main import main

import clickseg_infer as cs
from clickseg_infer.errors import ServerError
from clickseg_infer.server import serve


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


def test_it_serves_until_it_is_interrupted(image: Path, tiny_onnx: Path) -> None:
    command = [sys.executable, "-c", "from clickseg_cli.main import main; main()", "demo"]
    options = [str(image), "--model", str(tiny_onnx), "--port", "0", "--no-browser"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found
        with urllib.request.urlopen(found[0] + "api/about") as reply:
            assert json.load(reply)["scans"] == ["ball.nii.gz"]
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert process.returncode == 0


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
    monkeypatch.setattr(serve, "VIEWER", tmp_path / "niivue.js")
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
