"""The network that tells structures of the body apart: a second, smaller one in the model file.

It sees the CT alone. What the clicks mean by it is for `meaning` to say, and what that changes for
`mixing` (docs/decisions/0011-the-structure-that-was-meant.md).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.engines import Engine, Network, open_engine
from clickseg_infer.engines.shared import SharedEngine
from clickseg_infer.model_spec import ModelSpec

IMAGE, CHANCES = "image", "chances"
"""The names of its input and output."""


@dataclass(frozen=True, eq=False)
class Structures:
    """The network that tells structures apart.

    Attributes:
        engine: what runs it.
    """

    engine: Engine

    def chances(self, ct: NDArray[np.float32]) -> NDArray[np.float32]:
        """Which structure is where.

        Args:
            ct: (W, z, y, x) float32, the CT channels of a patch. Not modified.

        Returns:
            (1 + structures, z, y, x) float32 of cells, each of so many voxels as the network was
            made for, adding up to 1 in each cell; first the chance of none of them.

        Raises:
            EngineError: the engine failed.
        """
        chances: NDArray[np.float32] = self.engine.run_graph({IMAGE: ct[None]})[CHANCES][0]
        return chances

    def shared(self) -> "Structures":
        """The same for several threads."""
        return replace(self, engine=SharedEngine(self.engine))

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


def open_structures(graph: bytes, spec: ModelSpec, engine: str, precision: str) -> Structures:
    """Compile the graph that lies beside a network's.

    Args:
        graph: a serialised ONNX model in float32.
        spec: of the model.
        engine: as for `open_engine`; "auto" need not come to what runs the network.
        precision: likewise. 16-bit floats and integers are the network's own, and then the engine
            chooses.

    Raises:
        EngineError: the engine cannot run it.
    """
    shape = (1, len(spec.hu_windows), *spec.patch_size)
    network = Network(graph, spec.patch_size, shapes={IMAGE: shape})
    chosen = "auto" if precision in ("float16", "int8") else precision
    return Structures(open_engine(network, engine, chosen))
