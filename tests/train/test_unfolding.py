import math
from pathlib import Path

import numpy as np
import pytest
import torch
from clickseg_export.onnx_weights import read_initial
from clickseg_export.parity import example_batch

import clickseg_infer as cs
from clickseg_train.config import read_config
from clickseg_train.networks import DeepLabV3Plus, build_network
from clickseg_train.unfolding import measure_norms


@pytest.fixture
def begun(tiny_config: Path, tiny_onnx: Path) -> tuple[DeepLabV3Plus, torch.Tensor]:
    """A network with an exported model's weights, and a batch for it."""
    config = read_config(tiny_config)
    initial, spec = read_initial(tiny_onnx, config)
    network = build_network(config.network, len(spec.channels))
    network.load_state_dict(initial)
    return network, torch.from_numpy(np.concatenate([example_batch(spec)] * 2))


def test_measured_norms_change_nothing_in_evaluation(
    begun: tuple[DeepLabV3Plus, torch.Tensor], tiny_onnx: Path
) -> None:
    network, batch = begun
    with torch.no_grad():
        before = network.eval()(batch)
        measure_norms(network, [batch])
        after = network.eval()(batch)
        trained = network.train()(batch)
    assert torch.allclose(before, after, atol=1e-4)
    # It now computes about the same with the statistics of the batch.
    assert torch.allclose(before, trained, atol=0.05 * float(before.std()) + 1e-3)
    with cs.load_model(tiny_onnx, precision="float32") as model:
        assert np.allclose(model.engine.run(batch[:1].numpy()), before[:1], atol=1e-3)


def test_kernels_get_the_size_that_an_optimiser_expects(
    begun: tuple[DeepLabV3Plus, torch.Tensor],
) -> None:
    """Folded ones may be so small that a few steps make other kernels of them."""
    network, batch = begun
    first, second = network.stages[3][0].first[0], network.stages[3][0].second
    with torch.no_grad():  # what comes of both stays, by larger and by smaller kernels
        first[0].weight.mul_(100)
        first[1].bias.mul_(100)
        second[0].weight.div_(100)
        before = network.eval()(batch)
        measure_norms(network, [batch])
        assert torch.allclose(network.eval()(batch), before, atol=1e-4)
    for kernels in (first[0].weight, second[0].weight, network.decoder[0][0][0].weight):
        size = float(kernels.detach().pow(2).mean().sqrt())
        assert size == pytest.approx(math.sqrt(2 / kernels[0].numel()), rel=1e-3)
