"""The heads that a model file carries for f-BRS: written, and checked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from clickseg_export.head import Head as HeadModule
from clickseg_export.head import WithTensors, makers_of
from clickseg_export.onnx_weights import HALF
from clickseg_export.parity import example_batch
from clickseg_export.tracing import traced
from clickseg_infer.file_grid import Index
from clickseg_infer.model_spec import ModelSpec
from clickseg_infer.refinement.heads import GRADIENTS, POINTS, Head
from clickseg_infer.refinement.windows import WINDOW, cells_of, window_inputs
from clickseg_train.networks import DeepLabV3Plus

_WINDOWS = torch.export.Dim("windows", min=1)


def heads_of(network: DeepLabV3Plus, spec: ModelSpec, content: bytes) -> dict[str, Head]:
    """A head for each insertion point, without the weights that it shares with the model.

    Args:
        network: with the weights that are stored, normalisation folded in.
        spec: of the model.
        content: the network as `serialised` makes it, its weights in 16 bits or not.
    """
    tensors = tensors_of(network, spec)
    stored = {weight.name for weight in onnx.load_from_string(content).graph.initializer}
    channels = {name: tensor.shape[1] for name, tensor in tensors.items()}
    heads = {}
    for point in POINTS:
        module = HeadModule(network, point, channels)
        inputs = example_inputs(module, tensors, spec.patch_size)
        names = [*module.shape.inputs, "d_logits"]
        windowed = module.shape.windowed_inputs
        model = traced(
            module,
            {"inputs": {name: inputs[name] for name in names}},
            ["logits", *GRADIENTS],
            {"inputs": {name: _open_sizes(inputs[name], name in windowed) for name in names}},
            names,
        )
        heads[point] = _in_pieces(module, model, stored)
    return heads


def tensors_of(network: DeepLabV3Plus, spec: ModelSpec) -> dict[str, NDArray[np.float32]]:
    """What a network's heads read, of an example."""
    with torch.no_grad():
        _, *tensors = WithTensors(network)(torch.from_numpy(example_batch(spec)[:1]))
    return {name: t.numpy() for name, t in zip(makers_of(network), tensors, strict=True)}


def example_starts(patch: Index) -> list[Index]:
    """Where a few windows begin that do not overlap: in a patch's corners, and between."""
    dz, dy, dx = (n - size for n, size in zip(patch, WINDOW, strict=True))
    z, y, x = (last // 4 * 2 for last in (dz, dy, dx))
    return [(0, 0, 0), (z, y, x), (dz, dy, dx), (z, 0, dx)]


def example_inputs(
    module: HeadModule, tensors: Mapping[str, NDArray[np.float32]], patch: Index
) -> dict[str, Tensor]:
    """A head's inputs for a few windows, in the patch's corners and between, and any gradient."""
    rng = np.random.default_rng(0)
    starts = example_starts(patch)
    inputs = window_inputs(module.shape, patch, tensors, starts, WINDOW)
    channels = module.shape.channels
    inputs["scale"] = rng.normal(1, 0.2, channels).astype(np.float32)
    inputs["bias"] = rng.normal(0, 0.1, channels).astype(np.float32)
    d_logits = rng.normal(0, 1, (len(starts), *WINDOW)).astype(np.float32)
    inputs["d_logits"] = cells_of(d_logits, module.shape.cell)
    return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in inputs.items()}


def _open_sizes(value: Tensor, windowed: bool) -> dict[int, Any]:
    """Of windows, their number and their sizes are open; channels never are."""
    if not windowed:
        return {}
    sizes = [1, 2] if value.ndim == 3 else [2, 3, 4]
    return {0: _WINDOWS, **dict.fromkeys(sizes, torch.export.Dim.AUTO)}


def _in_pieces(module: HeadModule, model: onnx.ModelProto, stored: set[str]) -> Head:
    """A whole graph as the part that gives logits and the part that gives gradients."""
    graph = model.graph
    # By the parameters' names: constants have names that the exporter makes up for each graph.
    parameters = {name for name, _ in module.network.named_parameters()}
    shared = {weight.name for weight in graph.initializer} & parameters
    own = {w.name: w for w in graph.initializer if w.name not in shared}
    halves = sorted(name for name in shared if name not in stored)
    casts = [helper.make_node("Cast", [n + HALF], [n], to=TensorProto.FLOAT) for n in halves]
    needed = {"logits"}
    forward: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            forward.insert(0, node)
    there = {name for node in forward for name in node.output}
    backward = [node for node in graph.node if not there.intersection(node.output)]
    inputs = {value.name: value for value in graph.input}
    outputs = {value.name: value for value in graph.output}
    first = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    first.graph.name = module.point
    first.graph.node.extend([*casts, *forward])
    first.graph.input.extend(inputs[name] for name in module.shape.inputs)
    first.graph.output.append(outputs["logits"])
    first.graph.initializer.extend(value for name, value in own.items() if name in needed)
    second = onnx.ModelProto()
    second.graph.node.extend(backward)
    second.graph.input.append(inputs["d_logits"])
    second.graph.output.extend(outputs[name] for name in GRADIENTS)
    second.graph.initializer.extend(value for name, value in own.items() if name not in needed)
    names = (name if name in stored else name + HALF for name in sorted(shared))
    return Head(module.shape, tuple(names), first.SerializeToString(), second.SerializeToString())
