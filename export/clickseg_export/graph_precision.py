"""A float32 model becomes one that computes in 16 or 8 bits, with float32 in and out."""

import importlib
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from clickseg_infer.errors import ModelError
from clickseg_infer.model import with_spec
from clickseg_infer.model_spec import ModelSpec


def check_packages(precision: str) -> None:
    """Import what makes a graph of this precision.

    Raises:
        ImportError: it is not installed.
    """
    importlib.import_module(
        {"float16": "onnxruntime.transformers.float16", "int8": "nncf"}[precision]
    )


def to_float16(spec: ModelSpec, content: bytes) -> tuple[ModelSpec, bytes]:
    """Weights and activations in 16 bits; by ONNX Runtime's converter.

    Args:
        spec: of a model file whose graph is float32.
        content: the file.

    Returns:
        The new model's spec and file.

    Raises:
        ModelError: the graph is not float32.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights too small for 16 bits become the smallest
        model = convert_float_to_float16(_float32(spec, content), keep_io_types=True)
    first = [node for node in model.graph.node if node.input[0] == model.graph.input[0].name]
    rest = [node for node in model.graph.node if node.input[0] != model.graph.input[0].name]
    del model.graph.node[:]
    model.graph.node.extend(first + rest)  # the converter appends the input's cast
    return _finished(model, replace(spec, precision="float16", weights="float16"))


def to_int8(
    spec: ModelSpec, content: bytes, batches: Sequence[NDArray[np.float32]]
) -> tuple[ModelSpec, bytes]:
    """Convolutions in 8 bits; by NNCF's post-training quantisation.

    Those that read the network's input stay as they are: a window of HU has more than 256 steps
    that matter, and they are a small part of the work.

    Args:
        spec: of a model file whose graph is float32.
        content: the file.
        batches: network inputs (1, C, z, y, x) to measure the ranges of activations on.

    Returns:
        The new model's spec and file.

    Raises:
        ModelError: the graph is not float32.
    """
    import nncf

    patches = nncf.Dataset(list(batches), lambda batch: {"input": batch})
    model = _float32(spec, content)
    entry = model.graph.input[0].name
    first = [node.name for node in model.graph.node if entry in node.input]
    model = nncf.quantize(
        model,
        patches,
        ignored_scope=nncf.IgnoredScope(names=first),
        preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric, which is all that TensorRT reads
        subset_size=len(batches),
    )
    return _finished(model, replace(spec, precision="int8", weights="int8"))


def _float32(spec: ModelSpec, content: bytes) -> onnx.ModelProto:
    """The graph with its weights in float32."""
    if spec.precision != "float32":
        raise ModelError(f"the model is {spec.precision} already; give the float32 model")
    model = onnx.load_from_string(content)
    weights = {weight.name: weight for weight in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        weight = weights.get(node.input[0]) if node.op_type == "Cast" else None
        if weight is None or weight.data_type != TensorProto.FLOAT16:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(weight).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _finished(model: onnx.ModelProto, spec: ModelSpec) -> tuple[ModelSpec, bytes]:
    onnx.checker.check_model(model)
    return spec, with_spec(model.SerializeToString(), spec)
