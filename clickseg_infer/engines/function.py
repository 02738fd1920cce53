"""A function as an engine: for networks that live elsewhere, and for tests."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class FunctionEngine:
    """Calls `function(batch) -> logits`, arrays as in `Engine.run`."""

    precision = "float32"

    def __init__(
        self,
        function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        name: str = "function",
    ) -> None:
        self._function = function
        self.name = name

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) to logits (N, 1, z, y, x); see `Engine.run`."""
        return np.array(self._function(batch), np.float32)  # a copy: functions reuse theirs

    def close(self) -> None:
        """Nothing to let go of."""
