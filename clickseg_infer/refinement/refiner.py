"""A network and one of its heads, compiled: what f-BRS runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.engines import Engine, Network, open_engine
from clickseg_infer.engines.plan_builder import Profile
from clickseg_infer.engines.shared import SharedEngine
from clickseg_infer.errors import EngineError, ModelError
from clickseg_infer.file_grid import Index
from clickseg_infer.refinement.heads import GRADIENTS, POINTS, Head, Shape, with_outputs
from clickseg_infer.refinement.network_end import end_of, end_shapes
from clickseg_infer.refinement.tuning import Tuning
from clickseg_infer.refinement.windows import (
    WINDOW,
    cells_of,
    input_shapes,
    voxels_of,
    window_inputs,
)

Floats = NDArray[np.float32]

METHODS = ("none", "fbrs", *POINTS)
"""How answers may be refined: not at all, or by f-BRS at one of its insertion points; "fbrs" is
"fbrs-b"."""

_AT_ONCE = Profile().largest  # windows, since a plan takes no more


class Refiner:
    """Runs a network's head for any scale and bias, on what the network made of a patch.

    Attributes:
        point: the insertion point.
        channels: of the features there.
        patch: the patch size (z, y, x).
    """

    def __init__(
        self, point: str, shape: Shape, patch: Index, end: Engine, logits: Engine, gradient: Engine
    ) -> None:
        self.point, self.channels = point, shape.channels
        self._shape, self.patch = shape, patch
        self._end, self._logits, self._gradient = end, logits, gradient

    def change(self, begin: Tuning | None) -> NDArray[np.float64]:
        """What the search varies (2 C,), as it is at a tuning; zero for None.

        It is zero for a tuning of another insertion point, too.
        """
        if begin is None or len(begin.scale) != self.channels:
            return np.zeros(2 * self.channels)
        return np.concatenate([begin.scale - 1, begin.bias]).astype(np.float64)

    def tuning(self, change: NDArray[np.float64]) -> Tuning:
        """The tuning at a change of scale and bias; the way back from `change`."""
        scale, bias = np.split(change, 2)
        return Tuning((1 + scale).astype(np.float32), bias.astype(np.float32))

    def all_logits(self, tensors: Mapping[str, Floats], tuning: Tuning) -> Floats:
        """The logits (z, y, x) of the whole patch.

        Args:
            tensors: the network's tensors for the patch, by name. Not modified.
            tuning: of the features.

        Raises:
            EngineError: the engine failed.
        """
        inputs = {name: tensors[name] for name in self._shape.tensors}
        inputs["features"] = inputs.pop(self._shape.features)
        inputs["scale"] = tuning.scale.reshape(1, -1, 1, 1, 1)
        inputs["bias"] = tuning.bias.reshape(1, -1, 1, 1, 1)
        logits: Floats = self._end.run_graph(inputs)["logits"][0, 0]
        return logits

    def windows(self, tensors: Mapping[str, Floats], starts: Sequence[Index]) -> "Windows":
        """Windows of WINDOW voxels of a patch, to be asked for logits and gradients.

        Args:
            tensors: as in `all_logits`.
            starts: the windows' first voxels (z, y, x), even numbers.
        """
        parts = [starts[n : n + _AT_ONCE] for n in range(0, len(starts), _AT_ONCE)]
        inputs = [window_inputs(self._shape, self.patch, tensors, part, WINDOW) for part in parts]
        return Windows(self._logits, self._gradient, inputs, self._shape.cell)

    def shared(self) -> "Refiner":
        """The same refiner for several threads."""
        engines = (SharedEngine(engine) for engine in self._engines())
        return Refiner(self.point, self._shape, self.patch, *engines)

    def close(self) -> None:
        """Close the engines."""
        for engine in self._engines():
            engine.close()

    def _engines(self) -> tuple[Engine, Engine, Engine]:
        return self._end, self._logits, self._gradient


def check_method(method: str) -> None:
    """Refuse what is none of METHODS.

    Raises:
        EngineError: it is not.
    """
    if method not in METHODS:
        raise EngineError(f"unknown refinement {method!r}, allowed are {', '.join(METHODS)}")


def head_for(method: str, heads: Mapping[str, Head]) -> tuple[str, Head]:
    """The insertion point that a method other than "none" means, and its head.

    Raises:
        ModelError: the model has no such head.
    """
    point = "fbrs-b" if method == "fbrs" else method
    if point not in heads:
        raise ModelError(
            f"the model has no head for {point}; export its checkpoint in fp32 by this version"
        )
    return point, heads[point]


def giving_tensors(network: Network, head: Head) -> Network:
    """The network with the tensors that a head reads as further outputs; no plan lies beside it."""
    content = with_outputs(network.content, head.shape.tensors)
    return replace(network, content=content, path=None)


def open_refiner(network: Network, head: Head, point: str, engine: str, precision: str) -> Refiner:
    """A head of a network, compiled.

    Args:
        network: what the head belongs to.
        head: of the insertion point.
        point: the insertion point.
        engine: the name of an engine.
        precision: for logits and gradients alike.

    Raises:
        EngineError: the engine cannot run it.
        ModelError: the head does not belong to the network.
    """
    patch, shape, content = network.patch, head.shape, network.content
    windows = input_shapes(shape, patch, WINDOW, -1)
    given = {name: sizes for name, sizes in windows.items() if name != "d_logits"}
    graphs = (
        Network(end_of(content, shape), patch, shapes=end_shapes(shape, patch)),
        Network(head.logits_graph(content), patch, shapes=given),
        Network(head.gradient_graph(content), patch, shapes=windows),
    )
    opened: list[Engine] = []
    try:
        for graph in graphs:
            opened.append(open_engine(graph, engine, precision))
    except BaseException:
        for compiled in opened:
            compiled.close()
        raise
    return Refiner(point, shape, patch, *opened)


class Windows:
    """The logits of N windows of one patch, as functions of scale and bias."""

    def __init__(
        self, logits: Engine, gradient: Engine, inputs: list[dict[str, Floats]], cell: int
    ) -> None:
        self._logits, self._gradient = logits, gradient
        self._inputs, self._cell = inputs, cell

    def logits(self, tuning: Tuning) -> Floats:
        """(N, z, y, x).

        Raises:
            EngineError: the engine failed.
        """
        found = [self._logits.run_graph(part)["logits"] for part in self._tuned(tuning)]
        return voxels_of(np.concatenate(found), self._cell)

    def gradients(self, tuning: Tuning, d_logits: Floats) -> tuple[Floats, Floats]:
        """By scale and by bias, (C,) each: of the sum of the logits times `d_logits` (N, z, y, x).

        Raises:
            EngineError: the engine failed.
        """
        d_cells = cells_of(d_logits, self._cell)
        found = [
            self._gradient.run_graph({**part, "d_logits": d_cells[n * _AT_ONCE :][:_AT_ONCE]})
            for n, part in enumerate(self._tuned(tuning))
        ]
        by_scale, by_bias = (np.sum([part[name] for part in found], axis=0) for name in GRADIENTS)
        return by_scale, by_bias

    def _tuned(self, tuning: Tuning) -> list[dict[str, Floats]]:
        return [{**part, "scale": tuning.scale, "bias": tuning.bias} for part in self._inputs]
