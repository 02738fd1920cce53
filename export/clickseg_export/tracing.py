"""A torch module becomes an ONNX model without a trace of where it was made."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import nn

_OPSET = 18


def traced(
    module: nn.Module,
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    open_sizes: Mapping[str, Any],
    names: Sequence[str] = (),
) -> onnx.ModelProto:
    """Export a module.

    Args:
        module: its parameters keep their names, but for a leading "network.".
        inputs: its arguments by name; one of them may be a dictionary of tensors.
        outputs: names for its outputs.
        open_sizes: for each argument, the axes whose size is open, as `torch.export` has it.
        names: of the inputs, where they are not those of the arguments.
    """
    with _quiet():
        program = torch.onnx.export(
            module,
            (),
            kwargs=dict(inputs),
            dynamo=True,
            opset_version=_OPSET,
            input_names=list(names or inputs),
            output_names=list(outputs),
            dynamic_shapes=dict(open_sizes),
            verbose=False,
        )
    assert program is not None
    content = io.BytesIO()
    onnx.save(program.model_proto, content)
    model = onnx.load_from_string(content.getvalue())
    # The exporter leaves traces of the source tree in these; they are of no use to a reader.
    model.ClearField("metadata_props")
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    del graph.value_info[:]
    graph.ClearField("metadata_props")
    for weight in model.graph.initializer:
        weight.name = _plain(weight.name)
    for node in model.graph.node:
        node.input[:] = [_plain(name) for name in node.input]
    return model


def _plain(name: str) -> str:
    return name.removeprefix("network.")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its own internals; errors still arrive as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
