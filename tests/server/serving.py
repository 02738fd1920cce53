"""A demo that is really served."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from clickseg_infer.server.opening import Demo
from clickseg_infer.server.serve import bind, guarded


@contextmanager
def served(demo: Demo, token: str | None = None) -> Iterator[str]:
    """Serve a demo on a free port; its address."""
    address = bind("127.0.0.1", 0, token)
    server = uvicorn.Server(uvicorn.Config(guarded(demo, address), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [address.listening]})
    thread.start()
    try:
        yield address.url
    finally:
        server.should_exit = True
        thread.join()
        demo.registry.close_all()
