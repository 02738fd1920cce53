"""The way back: weights of an exported model, to begin another training with."""

from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from clickseg_infer.errors import CheckpointError
from clickseg_infer.model import read_model_file, read_structures
from clickseg_infer.model_spec import ModelSpec
from clickseg_train.checkpoint import read_checkpoint
from clickseg_train.config import TrainConfig
from clickseg_train.networks import build_network

HALF = "_half"
"""What the names of weights that are stored in 16 bits end in."""

_HEAD = ("classifier.", "detail.")  # the latter of models before the classifier saw single voxels
_BRANCH, _CLASSES = "structures.", "structures.classes."
_SHARPER = "structures.sharper.classes."  # which has no row but the structures'


def read_initial(path: Path, config: TrainConfig) -> tuple[dict[str, Tensor], ModelSpec]:
    """A state for `config`'s network, from a checkpoint or an exported model, and its spec.

    An exported model has its normalisation folded into the convolutions. The layers are put back
    so that they change nothing until `clickseg_train.unfolding` has measured what they normalise.
    Layers that the model does not have keep their first, random weights, and so does the head
    where it is another one. Where a structure branch tells other classes apart, those that it knows
    by name keep theirs; an exported model names no lesions, and as many as the configuration has
    are taken for the same. A branch that the configuration has none of is left out.

    Raises:
        FileError, ModelError, CheckpointError: the file cannot be read, is of another network, or
            has not the structure branch that the configuration has and does not teach.
    """
    network = build_network(config.network, len(config.model.spec().channels))
    if path.suffix == ".onnx":
        spec, content = read_model_file(path)
        weights = _weights(content)
        graph = read_structures(content)
        beside = _weights(graph) if graph else {}
        weights |= {_BRANCH + name: value for name, value in beside.items()}
        known = spec.structures
        rows = len(weights.get(f"{_CLASSES}bias", ())) - 1 - len(known)
        lesions = config.network.class_labels[len(config.network.labels) :]
        known += lesions if rows == len(lesions) else ("",) * rows
    else:
        checkpoint = read_checkpoint(path)
        spec = checkpoint.config.model.spec(checkpoint.trained_on)
        weights = checkpoint.average
        known = checkpoint.config.network.class_labels
    state = {name: value.clone() for name, value in network.state_dict().items()}
    found = _unfolded(network, weights) if path.suffix == ".onnx" else weights
    same_head = all(_fits(state, n, v) for n, v in found.items() if n.startswith(_HEAD))
    wanted = config.network.class_labels
    if network.structures is not None and config.learns == "clicks" and known != wanted:
        raise CheckpointError(
            f"{path}: tells other structures apart than network.structures and lesions, or none; "
            "leave them out, or teach them first"
        )
    for name, value in found.items():
        if name.startswith(_HEAD) and not same_head:
            continue
        if name.startswith(_BRANCH) and network.structures is None:
            continue
        if name.startswith(_CLASSES):
            value = _by_name(state[name], value, ("", *known), ("", *wanted))
        if name.startswith(_SHARPER) and name in state:
            value = _by_name(state[name], value, known[: len(value)], config.network.labels)
        if not _fits(state, name, value):
            raise CheckpointError(
                f"{path}: {name} {tuple(value.shape)} does not fit the configuration's network"
            )
        state[name] = value
    return state, spec


def _fits(state: dict[str, Tensor], name: str, value: Tensor) -> bool:
    return name in state and state[name].shape == value.shape


def _by_name(first: Tensor, found: Tensor, known: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """A last layer's weights of what is wanted: those found under its name, else the first ones.

    Weights of another network are given back as they are.
    """
    if first.shape[1:] != found.shape[1:] or len(found) != len(known):
        return found
    rows = first.clone()
    for row, name in enumerate(wanted):
        if name in known:
            rows[row] = found[known.index(name)]
    return rows


def _weights(content: bytes) -> dict[str, Tensor]:
    model = onnx.load_from_string(content)
    return {
        weight.name.removesuffix(HALF): torch.from_numpy(
            numpy_helper.to_array(weight).astype("float32")
        )
        for weight in model.graph.initializer
        if weight.name.removesuffix(HALF).endswith((".weight", ".bias"))
    }


def _unfolded(network: nn.Module, folded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each folded convolution's bias becomes that of the normalisation behind it."""
    state = dict(folded)
    for name, module in network.named_modules():
        if not isinstance(module, nn.Sequential):
            continue
        for n in range(len(module) - 1):
            conv, norm, layer = f"{name}.{n}", f"{name}.{n + 1}", module[n + 1]
            bias = state.get(f"{conv}.bias")
            if isinstance(layer, nn.BatchNorm3d) and bias is not None:
                del state[f"{conv}.bias"]
                state[f"{norm}.bias"] = bias
                state[f"{norm}.weight"] = torch.ones_like(bias)
                state[f"{norm}.running_mean"] = torch.zeros_like(bias)
                state[f"{norm}.running_var"] = torch.full_like(bias, 1 - layer.eps)
    return state
