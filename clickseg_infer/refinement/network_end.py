"""The end of a network, cut out of its serialised graph: what f-BRS answers a patch with.

A head computes small windows of the logits; for all of them the network's own layers are faster.
"""

from clickseg_infer.errors import ModelError
from clickseg_infer.file_grid import Index
from clickseg_infer.onnx_metadata import bytes_field, fields_of
from clickseg_infer.refinement.heads import FLOAT_TENSOR, Shape

_GRAPH, _METADATA = 7, 14  # fields of ModelProto
_NODE, _GRAPH_NAME, _INITIALIZER, _GIVEN, _RESULT = 1, 2, 5, 11, 12  # of GraphProto
_INPUT, _OUTPUT, _OPERATOR = 1, 2, 4  # of NodeProto
_TENSOR_NAME, _VALUE_NAME, _VALUE_TYPE = 8, 1, 2  # of TensorProto and ValueInfoProto


def end_of(network: bytes, shape: Shape) -> bytes:
    """A model of what a serialised network does with a head's tensors.

    Its inputs are "features", "scale" and "bias", the latter two (1, C, 1, 1, 1), and the head's
    other tensors by their names; its outputs are the network's.

    Raises:
        ModelError: the network makes its outputs of other tensors too.
    """
    view = memoryview(network)
    rest, nodes, results = [], [], []
    initializers: dict[str, memoryview] = {}
    for number, start, payload, stop in fields_of(view):
        if number not in (_GRAPH, _METADATA):
            rest.append(bytes(view[start:stop]))
        if number != _GRAPH:
            continue
        for part, first, content, last in fields_of(view, payload, stop):
            if part == _NODE:
                nodes.append(view[content:last])
            elif part == _RESULT:
                results.append(view[content:last])
            elif part == _INITIALIZER:
                (name,) = _strings(view[content:last], _TENSOR_NAME)
                initializers[name] = view[first:last]
    given = set(shape.tensors)
    needed = {name for value in results for name in _strings(value, _VALUE_NAME)}
    kept: list[memoryview] = []
    made = set(given)
    for node in reversed(nodes):  # which are in the order in which they are computed
        outputs = set(_strings(node, _OUTPUT))
        if (needed - given) & outputs:
            kept.insert(0, node)
            made |= outputs
            needed |= set(_strings(node, _INPUT)) - {""}
    missing = sorted(needed - made - set(initializers))
    if missing or not given <= needed:
        raise ModelError(f"the network's end is not made of {sorted(given)} alone: {missing[:3]}")
    inputs = ["features", "scale", "bias", *sorted(given - {shape.features})]
    graph = [
        bytes_field(_NODE, _operator("Mul", ("features", "scale"), "features.scaled")),
        bytes_field(_NODE, _operator("Add", ("features.scaled", "bias"), shape.features)),
        *(bytes_field(_NODE, bytes(node)) for node in kept),
        bytes_field(_GRAPH_NAME, b"end"),
        *(bytes(raw) for name, raw in initializers.items() if name in needed),
        *(bytes_field(_GIVEN, _floats(name)) for name in inputs),
        *(bytes_field(_RESULT, bytes(value)) for value in results),
    ]
    return b"".join([*rest, bytes_field(_GRAPH, b"".join(graph))])


def end_shapes(shape: Shape, patch: Index) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs of `end_of` for a patch of that size."""
    shapes = shape.tensor_shapes(patch)
    channels = (1, shape.channels, 1, 1, 1)
    tuned = {"features": shapes.pop(shape.features), "scale": channels, "bias": channels}
    return tuned | shapes


def _strings(message: memoryview, number: int) -> list[str]:
    """The strings in a message's field of that number."""
    return [bytes(message[p:e]).decode() for n, _, p, e in fields_of(message) if n == number]


def _operator(name: str, inputs: tuple[str, ...], output: str) -> bytes:
    """A serialised node."""
    parts = [bytes_field(_INPUT, given.encode()) for given in inputs]
    parts += [bytes_field(_OUTPUT, output.encode()), bytes_field(_OPERATOR, name.encode())]
    return b"".join(parts)


def _floats(name: str) -> bytes:
    """A serialised declaration of floats of any (N, C, z, y, x)."""
    return bytes_field(_VALUE_NAME, name.encode()) + bytes_field(_VALUE_TYPE, FLOAT_TENSOR)
