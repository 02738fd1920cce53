"""Serve the demo: an address of our own, a token where others can reach it, a browser."""

import secrets
import socket
import threading
import webbrowser
from contextlib import suppress
from dataclasses import dataclass

import uvicorn

from clickseg_infer.errors import ServerError, one_line
from clickseg_infer.server.app import STATIC, create_app
from clickseg_infer.server.guard import LOOPBACK, App, Guard
from clickseg_infer.server.opening import Demo

VIEWER = STATIC / "vendor" / "niivue.js"
_ANYWHERE = ("0.0.0.0", "::", "")  # every address of this machine


@dataclass(frozen=True)
class Address:
    """Where the demo listens.

    Attributes:
        host: as it was asked for.
        listening: the bound socket.
        token: needed by whoever asks; empty if none is.
    """

    host: str
    listening: socket.socket
    token: str

    @property
    def url(self) -> str:
        """What a browser opens; the token is behind the #, which browsers keep to themselves."""
        host = "127.0.0.1" if self.host in _ANYWHERE else self.host
        host = f"[{host}]" if ":" in host else host
        url = f"http://{host}:{self.listening.getsockname()[1]}/"
        return f"{url}#token={self.token}" if self.token else url


def check_viewer() -> None:
    """Raise ServerError if the viewer did not come with this installation."""
    if not VIEWER.is_file():
        raise ServerError(
            "the viewer is missing from this installation, which was built without npm; "
            "with npm there, run: python -m clickseg_infer.server.fetch_viewer"
        )


def bind(host: str, port: int, token: str | None) -> Address:
    """Listen at an address; beyond the loopback with a token, a new one if none is given.

    Raises:
        ServerError: the address cannot be had, or an empty token where one is needed.
    """
    if token == "" and host not in LOOPBACK:
        raise ServerError(f"at {host} others can connect, so a token is needed")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # a browser that is quick waits instead of failing
    except (OSError, OverflowError) as error:
        listening.close()
        raise ServerError(f"cannot listen at {host} port {port}: {one_line(error)}") from error
    if token is None:
        token = "" if host in LOOPBACK else secrets.token_urlsafe(16)
    return Address(host, listening, token)


def guarded(demo: Demo, address: Address) -> App:
    """The demo's application behind its guard."""
    hosts = LOOPBACK | {address.host.lower(), socket.gethostname().lower()}
    if address.host in LOOPBACK:
        hosts = LOOPBACK
    return Guard(create_app(demo), hosts, address.token, address.host in _ANYWHERE)


def serve(demo: Demo, address: Address, *, browser: bool = True) -> None:
    """Serve until interrupted, and open the page in a browser once it can be had."""
    config = uvicorn.Config(
        guarded(demo, address), log_level="warning", access_log=False, server_header=False
    )
    if browser:
        threading.Thread(target=webbrowser.open, args=(address.url,), daemon=True).start()
    try:
        with suppress(KeyboardInterrupt):  # how one ends it
            uvicorn.Server(config).run(sockets=[address.listening])
    finally:
        demo.registry.close_all()
