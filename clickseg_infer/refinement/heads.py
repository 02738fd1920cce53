"""What a model file holds for f-BRS beside its graph: the heads.

A head is the end of the network from an insertion point on, as a graph of its own that gives the
logits of windows and the gradients of scale and bias. It travels in the file's metadata without
weights: those it shares with the network, and protobuf messages concatenate, so that putting a
graph together is joining bytes (docs/decisions/0009-f-brs-by-graphs-that-share-weights.md).
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from clickseg_infer.errors import ModelError
from clickseg_infer.file_grid import Index
from clickseg_infer.onnx_metadata import bytes_field, fields_of

POINTS = {"fbrs-a": "backbone", "fbrs-b": "context", "fbrs-c": "decoded"}
"""f-BRS's insertion points: after the backbone, after the pyramid, before the classifier; and the
tensor whose scale and bias each of them adjusts."""

GRADIENTS = ("d_scale", "d_bias")
"""The outputs of a head beside its logits."""

_GRAPH, _INITIALIZER, _NAME, _OUTPUT = 7, 5, 8, 12  # fields of ModelProto, GraphProto, TensorProto
FLOAT_TENSOR = bytes.fromhex("0a0e0801120a" + 5 * "0a00")
"""A serialised TypeProto: floats of five open sizes."""


@dataclass(frozen=True)
class Level:
    """One resolution of a head.

    Attributes:
        name: of the level.
        stride: of its grid, in voxels of the patch.
        source: the stride of the grid that it is resized from; the same where it is not resized.
        convolutions: unpadded ones of 3^3.
        skip: the network's tensor that is joined to the features; empty for none.
        skip_channels: of that.
        whole: whether it spans the patch, whatever windows are asked for.
    """

    name: str
    stride: int
    source: int
    convolutions: int
    skip: str
    skip_channels: int
    whole: bool = False

    @property
    def resized(self) -> bool:
        """Whether the features change their grid here."""
        return self.stride != self.source

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the head's inputs that belong to this level."""
        names = [f"{self.name}_{axis}" for axis in "zyx"] if self.resized else []
        names += [f"{self.name}_skip"] if self.skip else []
        names += [f"{self.name}_inside_{number}" for number in range(self.convolutions)]
        return tuple(names)


@dataclass(frozen=True)
class Shape:
    """What a head consists of.

    Attributes:
        features: the network's tensor that is scaled.
        channels: of it.
        stride: of its grid, in voxels of the patch.
        levels: from coarse to fine.
    """

    features: str
    channels: int
    stride: int
    levels: tuple[Level, ...]

    @property
    def windowed(self) -> bool:
        """Whether the features come in windows too, as those of fine grids do."""
        return self.stride < 16

    @property
    def cell(self) -> int:
        """How many voxels along each axis an output of the last level stands for."""
        return self.levels[-1].stride

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the head's inputs, but for the logits' gradient."""
        names = ["features", "scale", "bias"] + ["features_inside"] * self.windowed
        return (*names, *(name for level in self.levels for name in level.inputs))

    @property
    def windowed_inputs(self) -> frozenset[str]:
        """Those of the inputs, and the logits' gradient, that have one entry for each window."""
        names = ["features", "features_inside"] if self.windowed else []
        names += [name for level in self.levels if not level.whole for name in level.inputs]
        return frozenset({*names, "d_logits"})

    @property
    def tensors(self) -> tuple[str, ...]:
        """The network's tensors that it reads."""
        return (self.features, *(level.skip for level in self.levels if level.skip))

    def tensor_shapes(self, patch: Index) -> dict[str, tuple[int, ...]]:
        """Those tensors' shapes (1, C, z, y, x) for a patch of that size."""
        grids = {self.features: (self.channels, self.stride)}
        grids |= {level.skip: (level.skip_channels, level.stride) for level in self.levels}
        return {
            name: (1, grids[name][0], *(n // grids[name][1] for n in patch))
            for name in self.tensors
        }


@dataclass(frozen=True, eq=False)
class Head:
    """One head: ONNX graphs in pieces, to be completed with the network's weights.

    Attributes:
        shape: what it consists of.
        weights: the names of the network's initializers that it shares.
        forward: a serialised model: inputs to "logits".
        gradient: what has to be appended to that: "d_logits" to GRADIENTS.
    """

    shape: Shape
    weights: tuple[str, ...]
    forward: bytes
    gradient: bytes

    def logits_graph(self, network: bytes) -> bytes:
        """The model that gives only logits, with the weights of a serialised network."""
        return self.forward + _initializers(network, self.weights)

    def gradient_graph(self, network: bytes) -> bytes:
        """The model that gives logits and gradients, likewise."""
        return self.forward + self.gradient + _initializers(network, self.weights)


def with_outputs(network: bytes, names: Sequence[str]) -> bytes:
    """A serialised network that gives some of its tensors beside the logits."""
    outputs = (bytes_field(1, name.encode()) + bytes_field(2, FLOAT_TENSOR) for name in names)
    return network + bytes_field(_GRAPH, b"".join(bytes_field(_OUTPUT, o) for o in outputs))


def heads_to_json(heads: Mapping[str, Head]) -> str:
    """The heads of a model, by insertion point, as one line."""
    return json.dumps(
        {
            point: {
                "shape": asdict(head.shape),
                "weights": head.weights,
                "forward": base64.b64encode(head.forward).decode(),
                "gradient": base64.b64encode(head.gradient).decode(),
            }
            for point, head in heads.items()
        }
    )


def heads_from_json(text: str) -> dict[str, Head]:
    """Read what `heads_to_json` wrote.

    Raises:
        ModelError: not such a text.
    """
    try:
        heads = {}
        for point, values in json.loads(text).items():
            shape = values["shape"]
            levels = tuple(Level(**level) for level in shape.pop("levels"))
            heads[str(point)] = Head(
                Shape(**shape, levels=levels),
                tuple(values["weights"]),
                base64.b64decode(values["forward"]),
                base64.b64decode(values["gradient"]),
            )
        return heads
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"its heads cannot be read: {error!r}") from error


def _initializers(network: bytes, names: Sequence[str]) -> bytes:
    """A message that holds nothing but the named initializers of a serialised network.

    Raises:
        ModelError: one is not there.
    """
    view, found = memoryview(network), {}
    for number, _, begin, end in fields_of(view):
        if number != _GRAPH:
            continue
        for part, start, payload, stop in fields_of(view, begin, end):
            if part == _INITIALIZER:
                name = _name_of(view, payload, stop)
                if name in names:
                    found[name] = bytes(view[start:stop])
    missing = [name for name in names if name not in found]
    if missing:
        raise ModelError(f"the network has no weights {missing[:3]}")
    return bytes_field(_GRAPH, b"".join(found.values()))


def _name_of(tensor: memoryview, begin: int, end: int) -> str:
    fields = fields_of(tensor, begin, end)
    return next((bytes(tensor[p:e]).decode() for n, _, p, e in fields if n == _NAME), "")
