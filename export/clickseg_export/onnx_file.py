"""A checkpoint becomes one `.onnx` file with its spec inside."""

import copy
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from clickseg_export.head import WithTensors, makers_of
from clickseg_export.head_check import check_heads
from clickseg_export.head_graph import heads_of
from clickseg_export.onnx_weights import HALF
from clickseg_export.parity import Parity, check_parity, example_batch
from clickseg_export.structure_graph import Chances, check_structures, structure_graph
from clickseg_export.tracing import traced
from clickseg_infer.engines import ON_GPU, Network, available, open_engine
from clickseg_infer.file_grid import Index
from clickseg_infer.model import with_spec
from clickseg_infer.model_spec import ModelSpec
from clickseg_train.checkpoint import Checkpoint, load_state, read_checkpoint
from clickseg_train.networks import DeepLabV3Plus, build_network

_SMALL = 1024  # weights of fewer values are not worth halving


def onnx_model(
    checkpoint: Path,
    *,
    half_weights: bool = False,
    threshold: float | None = None,
    patch: Index | None = None,
    heads: bool = True,
) -> tuple[tuple[ModelSpec, bytes], Parity]:
    """A checkpoint's averaged weights, normalisation folded in, checked, as a model file.

    Args:
        checkpoint: as `clickseg train` writes it.
        half_weights: store the weights in 16 bits; engines compute in 32 all the same.
        threshold: of the model, chosen on validation cases; without it, the one of the training.
        patch: the patch size (z, y, x); without it, the one of the training.
        heads: whether the file gets what f-BRS needs.

    Returns:
        Its spec and the file's content, and the largest differences found.

    Raises:
        FileError: the checkpoint cannot be read.
        CheckpointError: not a checkpoint, or damaged.
        ModelError: a threshold or a patch size that makes no sense.
        ParityError: the exported model differs from the network, its heads' gradients do, or what
            it tells of structures.
        EngineError: no engine to check it with.
    """
    state = read_checkpoint(checkpoint)
    trained = network_of(state)
    stored = folded(trained)
    if half_weights:
        stored = rounded(stored)
    spec = state.config.model.spec(state.trained_on)
    spec = replace(
        spec,
        weights="float16" if half_weights else "float32",
        threshold=spec.threshold if threshold is None else threshold,
        patch_size=spec.patch_size if patch is None else patch,
        structures=state.config.network.labels,
    )
    content = serialised(stored, torch.from_numpy(example_batch(spec)))
    if half_weights:
        content = halved(content)
    network = Network(content, spec.patch_size)
    names = [name for name in available(network) if name not in ON_GPU]
    engine = open_engine(network, names[-1], "float32")
    parity = check_parity(engine, stored if half_weights else trained, trained, spec)
    engine.close()
    graph, found = b"", {}
    if stored.structures is not None:
        branch = Chances(stored.structures, len(spec.structures))
        graph = structure_graph(branch, spec)
        graph = halved(graph) if half_weights else graph
        structures = max(check_structures(branch, spec, graph, name) for name in names)
        parity = replace(parity, structures=structures)
    if heads:
        found = heads_of(stored, spec, content)
        gradients = max(check_heads(stored, spec, content, found, name) for name in names)
        parity = replace(parity, gradients=gradients)
    return (spec, with_spec(content, spec, found, graph)), parity


def network_of(checkpoint: Checkpoint) -> DeepLabV3Plus:
    """The checkpoint's network with its averaged weights, ready to predict."""
    channels = len(checkpoint.config.model.spec().channels)
    network = build_network(checkpoint.config.network, channels).eval()
    load_state(network, checkpoint.average)
    return network


def folded(network: DeepLabV3Plus) -> DeepLabV3Plus:
    """A copy with each batch normalisation folded into the convolution before it."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            for n in range(len(module) - 1):
                conv, norm = module[n], module[n + 1]
                if isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                    module[n], module[n + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return network


def rounded(network: DeepLabV3Plus) -> DeepLabV3Plus:
    """A copy whose large weights hold values that 16 bits represent."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() >= _SMALL:
                parameter.copy_(parameter.half().float())
    return network


def serialised(network: DeepLabV3Plus, batch: torch.Tensor) -> bytes:
    """A network as an ONNX model for any number of patches like those of `batch`.

    The tensors that heads read keep their names in it; they are none of its outputs.
    """
    tensors = makers_of(network)
    model = traced(
        WithTensors(network),
        {"x": batch},
        ["logits", *tensors],
        {"x": {0: torch.export.Dim("batch", min=1)}},
        ["input"],
    )
    del model.graph.output[1:]
    onnx.checker.check_model(model)
    return model.SerializeToString()


def halved(content: bytes) -> bytes:
    """Store large weights in 16 bits, each with a cast back that engines fold when they load."""
    model = onnx.load_from_string(content)
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type == TensorProto.FLOAT and values.size >= _SMALL:
            name = weight.name
            weight.CopyFrom(numpy_helper.from_array(values.astype("float16"), name + HALF))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model.SerializeToString()
