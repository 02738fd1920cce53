"""Milliseconds by stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the time of named stages; stages of one name add up, and must not nest.

    Attributes:
        ms: milliseconds by stage so far.
    """

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - began) * 1e3
            self.ms[name] = self.ms.get(name, 0.0) + spent

    @property
    def total_ms(self) -> float:
        """Milliseconds since this watch was made."""
        return (time.perf_counter() - self._began) * 1e3
