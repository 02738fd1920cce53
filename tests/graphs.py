"""Small ONNX graphs of several inputs and outputs."""

from onnx import ModelProto, TensorProto, ValueInfoProto, helper


def several_onnx() -> bytes:
    """features (batch, 3, width) and bias (3, 1) to their sum and, within, its squares.

    A model of one output; `further_outputs("squares")` makes it two.
    """
    nodes = [
        helper.make_node("Add", ["features", "bias"], ["sum"]),
        helper.make_node("ReduceSumSquare", ["sum", "axes"], ["squares"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "several",
        [_value("features", ["batch", 3, "width"]), _value("bias", [3, 1])],
        [_value("sum", ["batch", 3, "width"])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    return _model(graph)


def network_onnx() -> bytes:
    """A network: input (batch, 3, 4, 4, 4) to logits (batch, 1, 4, 4, 4), through "hidden"."""
    nodes = [
        helper.make_node("Relu", ["input"], ["hidden"]),
        helper.make_node("ReduceSum", ["hidden", "axes"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [_value("input", ["batch", 3, 4, 4, 4])],
        [_value("logits", ["batch", 1, 4, 4, 4])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    return _model(graph)


def further_outputs(*names: str) -> bytes:
    """What appended to a model's bytes makes these tensors outputs after its own.

    Protocol Buffers merge messages that follow each other:
    https://protobuf.dev/programming-guides/encoding/#last-one-wins.
    """
    more = ModelProto()
    for name in names:
        output = more.graph.output.add(name=name)
        output.type.tensor_type.elem_type = TensorProto.FLOAT
    return more.SerializeToString()


def _value(name: str, shape: list[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(graph: object) -> bytes:
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
