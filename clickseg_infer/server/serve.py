"""Serve the demo: an address of our own, a token where others can reach it, a browser."""

import secrets
import signal
import socket
import threading
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

import uvicorn

from clickseg_infer.errors import ServerError, one_line
from clickseg_infer.server.app import create_app
from clickseg_infer.server.fetch_viewer import is_current
from clickseg_infer.server.guard import LOOPBACK, App, Guard
from clickseg_infer.server.opening import Demo

_ANYWHERE = ("0.0.0.0", "::", "")  # every address of this machine
_PATIENCE_S = 3  # with requests that are still open at the end


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
        return f"{url}#token={quote(self.token, safe='')}" if self.token else url


def check_viewer() -> None:
    """Raise ServerError if the viewer that the page needs did not come with this installation."""
    if not is_current():
        raise ServerError(
            "the viewer is missing from this installation, or is another version; "
            "with npm there, run: python -m clickseg_infer.server.fetch_viewer"
        )


def bind(host: str, port: int, token: str | None) -> Address:
    """Listen at an address; beyond the loopback with a token, a new one if none is given.

    Raises:
        ServerError: the address cannot be had, an empty token where one is needed, or one that
            no header can carry.
    """
    if token == "" and host not in LOOPBACK:
        raise ServerError(f"at {host} others can connect, so a token is needed")
    if not all("!" <= letter <= "~" for letter in token or ""):
        raise ServerError("a token has plain letters, digits and signs, and no blanks")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP, or asyncio leaves Nagle's delay on: 40 ms for every reply.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
        guarded(demo, address),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE_S,
    )
    server = uvicorn.Server(config)
    _end_on_signals(server)
    if browser:
        threading.Thread(target=webbrowser.open, args=(address.url,), daemon=True).start()
    try:
        with suppress(KeyboardInterrupt):  # how one ends it
            server.run(sockets=[address.listening])
    finally:
        demo.registry.close_all()


def _end_on_signals(server: uvicorn.Server) -> None:
    """End as by Ctrl-C when told to, or when the terminal goes: sent scans must not stay behind."""

    def end(*_: object) -> None:
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        return  # where Python takes no handlers
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # by nohup
            signal.signal(number, end)
