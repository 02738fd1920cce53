"""A head beside the whole network: its logits, and autograd's gradients."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from clickseg_export.head import Head, WithTensors, makers_of
from clickseg_export.onnx_file import folded, serialised
from torch import nn
from tuned import tensors_of, tuned

from clickseg_infer.engines import Network, open_engine
from clickseg_infer.refinement.heads import POINTS
from clickseg_infer.refinement.network_end import end_of, end_shapes
from clickseg_infer.refinement.windows import cells_of, voxels_of, window_inputs
from clickseg_train.config import NetworkConfig
from clickseg_train.networks import DeepLabV3Plus, build_network

PATCH = (64, 32, 48)
SIZE = (6, 6, 6)
NARROW = {"width": 4, "pyramid_width": 8, "decoder_width": 4}
NETWORKS = {
    "light": NetworkConfig(**NARROW, stem_size=3, middle_width=4, refine_width=4, detail_width=4),
    "without detail": NetworkConfig(**NARROW, middle_width=4, refine_width=4),
    "seed": NetworkConfig(**NARROW),
}
WINDOWS = {
    "corners": [(0, 0, 0), (58, 26, 42), (58, 0, 42)],
    "beyond": [(-2, -2, -2), (60, 28, 44), (-2, 28, 20)],
    "middle": [(20, 14, 22), (30, 12, 2)],
}


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    return torch.randn(1, 3, *PATCH, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, batch: torch.Tensor) -> DeepLabV3Plus:
    """Features of about 1 everywhere, as training leaves them, and nothing that is zero."""
    torch.manual_seed(3)
    network = build_network(NETWORKS[request.param], 3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0, 0.1)
            module.momentum = 1.0
    with torch.no_grad():
        network(batch)
    return folded(network.eval())


def head_of(network: DeepLabV3Plus, point: str, tensors: dict[str, np.ndarray]) -> Head:
    return Head(network, point, {name: tensor.shape[1] for name, tensor in tensors.items()})


def tuning_of(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    scale, bias = (torch.randn(channels, generator=generator) for _ in range(2))
    return (1 + 0.2 * scale).requires_grad_(), (0.1 * bias).requires_grad_()


def inputs_of(
    head: Head, tensors: dict[str, np.ndarray], starts: Sequence, size: tuple[int, int, int]
) -> dict[str, torch.Tensor]:
    inputs = window_inputs(head.shape, PATCH, tensors, starts, size)
    return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in inputs.items()}


def shared_part(start: tuple[int, int, int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What a window has of the patch, in the patch's voxels and in its own."""
    ends = [(max(0, s), min(s + n, p)) for s, n, p in zip(start, SIZE, PATCH, strict=True)]
    own = tuple(slice(a - s, b - s) for (a, b), s in zip(ends, start, strict=True))
    return tuple(slice(*end) for end in ends), own


@pytest.mark.parametrize("starts", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("point", POINTS)
def test_windows_have_the_networks_logits_and_autograds_gradients(
    network: DeepLabV3Plus, point: str, starts: list, batch: torch.Tensor
) -> None:
    tensors = tensors_of(network, batch)
    head = head_of(network, point, tensors)
    scale, bias = tuning_of(head.shape.channels)
    whole = tuned(network, point, batch, scale, bias)
    d_logits = np.zeros((len(starts), *SIZE), np.float32)
    total = torch.zeros(())
    rng = np.random.default_rng(6)
    for number, start in enumerate(starts):
        there, own = shared_part(start)
        d_logits[number][own] = rng.normal(size=whole[there].shape)
        total = total + (whole[there] * torch.from_numpy(d_logits[number][own])).sum()
    total.backward()
    inputs = inputs_of(head, tensors, starts, SIZE)
    inputs |= {"scale": scale, "bias": bias}
    assert set(inputs) == set(head.shape.inputs)
    inputs["d_logits"] = torch.from_numpy(cells_of(d_logits, head.shape.cell))
    with torch.no_grad():
        cells, by_scale, by_bias = head(inputs)
    logits = voxels_of(cells.numpy(), head.shape.cell)
    for number, start in enumerate(starts):
        there, own = shared_part(start)
        expected = whole[there].detach().numpy()
        assert np.abs(logits[number][own] - expected).max() <= 1e-5
    for ours, theirs in ((by_scale, scale.grad), (by_bias, bias.grad)):
        assert theirs is not None
        assert theirs.norm() > 0
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@pytest.mark.parametrize("point", POINTS)
def test_a_window_that_is_the_patch_gives_all_logits(
    network: DeepLabV3Plus, point: str, batch: torch.Tensor
) -> None:
    tensors = tensors_of(network, batch)
    head = head_of(network, point, tensors)
    scale, bias = tuning_of(head.shape.channels)
    inputs = inputs_of(head, tensors, [(0, 0, 0)], PATCH) | {"scale": scale, "bias": bias}
    with torch.no_grad():
        (cells,) = head(inputs)
        expected = tuned(network, point, batch, scale, bias).numpy()
        plain = network(batch)[0, 0].numpy()
    logits = voxels_of(cells.numpy(), head.shape.cell)[0]
    assert np.abs(logits - expected).max() <= 1e-5
    assert np.abs(expected - plain).max() > 1e-2


def test_tensors_are_what_the_network_makes_of_its_input(
    network: DeepLabV3Plus, batch: torch.Tensor
) -> None:
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name, module in makers_of(network).items()
    ]
    with torch.no_grad():
        logits = network(batch)
        for hook in hooks:
            hook.remove()
        ours, *tensors = WithTensors(network)(batch)
    assert torch.equal(ours, logits)
    for name, tensor in zip(makers_of(network), tensors, strict=True):
        assert torch.equal(tensor, seen[name])
    for point in POINTS:
        shape = head_of(network, point, {name: t.numpy() for name, t in seen.items()}).shape
        for name, size in shape.tensor_shapes(PATCH).items():
            assert tuple(seen[name].shape) == size


@pytest.fixture(scope="module")
def exported(network: DeepLabV3Plus, batch: torch.Tensor) -> bytes:
    return serialised(network, batch)


@pytest.mark.parametrize("point", POINTS)
def test_the_end_of_the_exported_network_is_what_follows_the_point(
    network: DeepLabV3Plus, exported: bytes, batch: torch.Tensor, point: str
) -> None:
    tensors = tensors_of(network, batch)
    shape = head_of(network, point, tensors).shape
    end = Network(end_of(exported, shape), PATCH, shapes=end_shapes(shape, PATCH))
    running = open_engine(end, "openvino", "float32")
    scale, bias = tuning_of(shape.channels)
    inputs = {name: tensors[name] for name in shape.tensors if name != shape.features}
    inputs["features"] = tensors[shape.features]
    for name, values in (("scale", scale), ("bias", bias)):
        inputs[name] = values.detach().numpy().reshape(1, -1, 1, 1, 1)
    found = running.run_graph(inputs)["logits"][0, 0]
    running.close()
    expected = tuned(network, point, batch, scale, bias).detach().numpy()
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
