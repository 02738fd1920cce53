"""The bundled model's network in torch, for what runs it beside the engines."""

from clickseg_export.onnx_weights import read_initial
from torch import nn

from clickseg_infer.model import DEFAULT_MODEL
from clickseg_train.config import read_config
from clickseg_train.networks import build_network


def torch_network() -> nn.Module:
    """In float32 and evaluation mode, with its structure branch."""
    config = read_config("structures")
    network = build_network(config.network, len(config.model.spec().channels))
    network.load_state_dict(read_initial(DEFAULT_MODEL, config)[0])
    return network.eval()
