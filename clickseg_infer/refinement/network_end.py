"""The end of a network, cut out of its serialised graph: what f-BRS answers a patch with.

A head computes small windows of the logits; for all of them the network's own layers are faster.
"""

from dataclasses import dataclass

from clickseg_infer.errors import ModelError
from clickseg_infer.file_grid import Index
from clickseg_infer.onnx_metadata import bytes_field, fields_of
from clickseg_infer.refinement.heads import FLOAT_TENSOR, Shape

_GRAPH, _METADATA = 7, 14  # fields of ModelProto
_NODE, _GRAPH_NAME, _WEIGHT, _GIVEN, _RESULT = 1, 2, 5, 11, 12  # of GraphProto
_INPUT, _OUTPUT, _OPERATOR = 1, 2, 4  # of NodeProto
_TENSOR_NAME, _VALUE_NAME, _VALUE_TYPE = 8, 1, 2  # of TensorProto and ValueInfoProto


@dataclass(frozen=True)
class _Parts:
    """A serialised model: nodes, weights by name and results of its graph, and other fields."""

    nodes: list[memoryview]
    weights: dict[str, memoryview]
    results: list[memoryview]
    others: list[memoryview]


def end_of(network: bytes, shape: Shape) -> bytes:
    """A model of what a serialised network does with a head's tensors.

    Its inputs are "features", "scale" and "bias", the latter two (1, C, 1, 1, 1), and the head's
    other tensors by their names; its outputs are the network's.

    Raises:
        ModelError: the network makes its outputs of other tensors too, or not of all of these.
    """
    parts, given = _parts_of(network), set(shape.tensors)
    needed = {name for value in parts.results for name in _strings(value, _VALUE_NAME)}
    kept: list[memoryview] = []
    made = given | set(parts.weights)
    for node in reversed(parts.nodes):  # which are in the order in which they are computed
        outputs = set(_strings(node, _OUTPUT))
        if (needed - given) & outputs:
            kept.append(node)
            made |= outputs
            needed |= set(_strings(node, _INPUT)) - {""}
    missing, unused = sorted(needed - made), sorted(given - needed)
    if missing or unused:
        raise ModelError(f"the network's end also needs {missing[:3]}, and does not need {unused}")
    inputs = ["features", "scale", "bias", *sorted(given - {shape.features})]
    graph = [
        bytes_field(_NODE, _operator("Mul", ("features", "scale"), "features.scaled")),
        bytes_field(_NODE, _operator("Add", ("features.scaled", "bias"), shape.features)),
        *(bytes_field(_NODE, bytes(node)) for node in reversed(kept)),
        bytes_field(_GRAPH_NAME, b"end"),
        *(bytes_field(_WEIGHT, bytes(w)) for name, w in parts.weights.items() if name in needed),
        *(bytes_field(_GIVEN, _floats(name)) for name in inputs),
        *(bytes_field(_RESULT, bytes(value)) for value in parts.results),
    ]
    return b"".join([*parts.others, bytes_field(_GRAPH, b"".join(graph))])


def end_shapes(shape: Shape, patch: Index) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs of `end_of` for a patch of that size."""
    shapes = shape.tensor_shapes(patch)
    channels = (1, shape.channels, 1, 1, 1)
    tuned = {"features": shapes.pop(shape.features), "scale": channels, "bias": channels}
    return tuned | shapes


def _parts_of(model: bytes) -> _Parts:
    view, parts = memoryview(model), _Parts([], {}, [], [])
    for number, begin, payload, end in fields_of(view):
        if number not in (_GRAPH, _METADATA):
            parts.others.append(view[begin:end])
        elif number == _GRAPH:
            for part, _, first, last in fields_of(view, payload, end):
                message = view[first:last]
                if part == _NODE:
                    parts.nodes.append(message)
                elif part == _RESULT:
                    parts.results.append(message)
                elif part == _WEIGHT:
                    (name,) = _strings(message, _TENSOR_NAME)
                    parts.weights[name] = message
    return parts


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
