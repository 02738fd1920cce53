"""The branch that tells structures apart becomes a second graph of the model file."""

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clickseg_export.parity import TOLERANCE, example_batch
from clickseg_export.tracing import traced
from clickseg_infer.errors import ParityError
from clickseg_infer.model_spec import ModelSpec
from clickseg_infer.structures import CHANCES, IMAGE, open_structures
from clickseg_train.structure_branch import Structures


class Chances(nn.Module):
    """A branch's chances of none of the first `structures` classes, and of each of them."""

    def __init__(self, network: Structures, structures: int) -> None:
        super().__init__()
        self.network, self._structures = network, structures

    def forward(self, image: Tensor) -> Tensor:
        """(N, W, z, y, x) to (N, 1 + structures, z, y, x) of cells."""
        chances = self.network(image).softmax(1)
        named = chances[:, 1 : 1 + self._structures]
        others = chances[:, 1 + self._structures :].sum(1, keepdim=True)
        return torch.cat([chances[:, :1] + others, named], dim=1)


def structure_graph(branch: Chances, spec: ModelSpec) -> bytes:
    """A serialised ONNX model of a branch, from the CT channels of a patch to chances."""
    image = torch.from_numpy(_images(spec)[:1])
    model = traced(branch, {IMAGE: image}, [CHANCES], {IMAGE: None})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def check_structures(branch: Chances, spec: ModelSpec, graph: bytes, engine: str) -> float:
    """Compare the graph, run by an engine, with the branch in torch.

    Args:
        branch: with the weights that are stored, normalisation folded in.
        spec: of the model.
        graph: a serialised ONNX model.
        engine: the name of what runs it.

    Returns:
        The largest difference of a chance.

    Raises:
        ParityError: it is more than TOLERANCE.
        EngineError: the engine cannot run the graph.
    """
    images = _images(spec)
    structures = open_structures(graph, spec, engine, "float32")
    try:
        answer = np.stack([structures.chances(image) for image in images])
    finally:
        structures.close()
    with torch.no_grad():
        expected = branch(torch.from_numpy(images)).numpy()
    if answer.shape != expected.shape:
        raise ParityError(f"the structures' graph gives {answer.shape}, torch {expected.shape}")
    largest = float(np.abs(answer - expected).max())
    if not largest <= TOLERANCE:  # also refuses NaN
        raise ParityError(
            f"{engine} and torch differ by up to {largest:.2e} in the chance of a structure, "
            f"allowed is {TOLERANCE:.0e}"
        )
    return largest


def _images(spec: ModelSpec) -> NDArray[np.float32]:
    return example_batch(spec)[:, : len(spec.hu_windows)]
