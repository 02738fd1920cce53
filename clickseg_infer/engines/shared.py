"""One engine for several threads."""

from collections.abc import Mapping
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.engines import Engine


class SharedEngine:
    """Lets several threads run one engine, each in its turn; closes it when closed.

    Attributes:
        name: of the engine that really runs.
        precision: in which it really computes.
    """

    def __init__(self, engine: Engine) -> None:
        self.name = engine.name
        self.precision = engine.precision
        self._engine = engine
        self._turn = Lock()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) to logits (N, 1, z, y, x); see `Engine.run`."""
        with self._turn:
            return self._engine.run(batch)

    def run_graph(
        self, inputs: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Every output by its name; see `Engine.run_graph`."""
        with self._turn:
            return self._engine.run_graph(inputs)

    def close(self) -> None:
        """Close the engine once it has finished what it is running."""
        with self._turn:
            self._engine.close()
