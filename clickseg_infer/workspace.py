"""What answers on one volume keep for each other, and never show."""

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray


class Workspace:
    """A buffer for the network's input, and the logits of patches that ran lately.

    Belongs to one model, one volume and one thread. It changes what an answer costs, never the
    answer.
    """

    def __init__(self) -> None:
        self._batch = np.empty(0, np.float32)
        self._before: dict[Hashable, NDArray[np.float32]] = {}
        self._now: dict[Hashable, NDArray[np.float32]] = {}

    def begin(self) -> None:
        """Begin another answer: patches that served neither this one nor the one before may go."""
        self._before, self._now = self._now, {}

    def batch(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array of `shape`, float32, of any content; the same one every time."""
        if self._batch.shape != shape:
            self._batch = np.empty(shape, np.float32)
        return self._batch

    def recall(self, key: Hashable) -> NDArray[np.float32] | None:
        """The logits (z, y, x) that were kept under `key`, or None."""
        known = self._now.get(key, self._before.get(key))
        if known is not None:
            self._now[key] = known
        return known

    def keep(self, key: Hashable, logits: NDArray[np.float32]) -> None:
        """Keep logits (z, y, x), which must not be modified from then on."""
        logits.flags.writeable = False
        self._now[key] = logits
