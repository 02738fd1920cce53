"""A function as an engine: for networks that live elsewhere, and for tests."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.errors import EngineError


class FunctionEngine:
    """Calls `function(batch) -> logits` and `graph(inputs) -> outputs`, arrays as in `Engine`."""

    precision = "float32"

    def __init__(
        self,
        function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        name: str = "function",
        graph: Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, NDArray[np.float32]]]
        | None = None,
    ) -> None:
        self._function, self._graph = function, graph
        self.name = name

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) to logits (N, 1, z, y, x); see `Engine.run`."""
        return np.array(self._function(batch), np.float32)  # a copy: functions reuse theirs

    def run_graph(
        self, inputs: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Every output by its name; see `Engine.run_graph`."""
        if self._graph is None:
            raise EngineError(f"{self.name} has no graph, only a network of one input")
        return {name: np.array(array, np.float32) for name, array in self._graph(inputs).items()}

    def close(self) -> None:
        """Nothing to let go of."""
