"""What every request passes first: is it from our own page, may it ask, is it small enough.

A browser sends Host and Origin by itself, and no page can change them. A page elsewhere that makes
the browser call us shows its own Origin; one whose name was pointed at our address (DNS rebinding)
shows its own name as the Host. Both are turned away before anything is read.
"""

import ipaddress
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BODY_BYTES = 1 << 16  # of a request that is not an upload
_TOO_LONG = f"a request may have {MOST_BODY_BYTES} bytes"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = {
    "cache-control": "no-store",  # scans are nothing for a browser's cache
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; connect-src 'self' data:; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """ASGI middleware that turns away what does not come from our own page.

    Where a token is set, everything under /api/ needs it: `Authorization: Bearer TOKEN`.
    """

    def __init__(
        self, app: App, hosts: frozenset[str] = LOOPBACK, token: str = "", any_address: bool = False
    ) -> None:
        """Guard an app.

        Args:
            app: what answers.
            hosts: the names by which the server may be called.
            token: without which nothing is answered; none is needed if it is empty.
            any_address: whether it may be called by any numeric address as well, which no name
                can be pointed at.
        """
        self._app = app
        self._hosts = hosts
        self._token = token
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a web socket: nothing here speaks that
        scope.setdefault("state", {})["began"] = perf_counter()
        sent = _safely(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(sent, *refusal)
            return
        bounded = receive if _is_upload(scope) else _bounded(receive)
        await self._app(scope, bounded, sent)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason for not answering at all."""
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        host = headers.get("host", "")
        if not self._is_ours(_name_of(host)):
            return 403, "this server is not called by that Host"
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return 403, "another page may not use this server"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not (
            scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        ):
            return 403, "another page may not use this server"
        if self._token and scope["path"].startswith("/api/"):
            given = headers.get("authorization", "").encode("utf-8", "replace")
            if not secrets.compare_digest(given, f"Bearer {self._token}".encode()):
                return (
                    401,
                    "the token is missing or wrong; open the address that the server printed",
                )
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return 400, "the Content-Length is not a number"
        if int(length[:18]) > MOST_BODY_BYTES and not _is_upload(scope):
            return 413, _TOO_LONG
        return None

    def _is_ours(self, name: str) -> bool:
        if name in self._hosts:
            return True
        if not self._any_address:
            return False
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; empty if it makes no sense."""
    try:
        return str(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return ""


def _is_upload(scope: Scope) -> bool:
    """Whether the body is a file, which is bounded where it is written."""
    return bool(scope["method"] == "POST" and scope["path"].endswith("/upload"))


def _bounded(receive: Receive) -> Receive:
    count = 0

    async def receive_some() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > MOST_BODY_BYTES:
            raise HTTPException(413, _TOO_LONG)  # the app makes the answer of it
        return message

    return receive_some


def _safely(send: Send) -> Send:
    """Adds what tells browsers to be careful."""

    async def send_safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(k.encode(), v.encode()) for k, v in _SAFE.items()]
            message["headers"] = [*message.get("headers", []), *own]
        await send(message)

    return send_safely


async def _refuse(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
