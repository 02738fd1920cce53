from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clickseg_train.config import NetworkConfig, read_config
from clickseg_train.networks import build_network


def test_logits_have_the_inputs_size() -> None:
    network = build_network(NetworkConfig(width=4, pyramid_width=8, decoder_width=4), 5).eval()
    for size in ((32, 32, 32), (48, 32, 64)):
        assert network(torch.zeros(2, 5, *size)).shape == (2, 1, *size)


def test_the_backbone_is_resnet_34_at_stride_16() -> None:
    network = build_network(read_config("spleen").network, 4)
    assert [len(stage) for stage in network.stages] == [3, 4, 6, 3]
    blocks = sum(
        isinstance(m, torch.nn.Conv3d) and m.kernel_size == (3, 3, 3)
        for m in network.stages.modules()
    )
    assert 1 + blocks + 1 == 34  # the stem, two in each of 16 blocks, and the classifier
    x = network.pool(network.stem(torch.zeros(1, 4, 32, 32, 32)))
    for stage in network.stages:
        x = stage(x)
    assert x.shape == (1, 512, 2, 2, 2)


def test_the_light_network_is_light() -> None:
    config = read_config("light")
    channels = len(config.model.spec().channels)
    network = build_network(config.network, channels).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, channels, 96, 96, 96))
    weights = sum(p.numel() for p in network.parameters())
    assert counter.get_total_flops() <= 20e9
    assert weights * 2 <= 16e6
    # as the model card says
    assert round(counter.get_total_flops() / 1e9) == 16
    assert round(weights / 1e6, 1) == 5.1


def test_the_light_network_with_its_structure_branch_is_light() -> None:
    config = read_config("structures")
    channels, windows = len(config.model.spec().channels), config.network.structure_windows
    network = build_network(config.network, channels).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, channels, 96, 96, 96))
        network.structures(torch.zeros(1, windows, 96, 96, 96))
    assert counter.get_total_flops() <= 20e9
    weights = sum(p.numel() for p in network.structures.parameters())
    assert sum(p.numel() for p in network.parameters()) * 2 <= 16e6
    # as the model card says
    assert round(counter.get_total_flops() / 1e9) == 20
    assert round(weights / 1e6, 1) == 1.4


@pytest.mark.parametrize("refine", [0, 4])
def test_every_weight_learns(refine: int) -> None:
    config = NetworkConfig(width=4, pyramid_width=8, decoder_width=4, refine_width=refine)
    network = build_network(config, 3)
    network(torch.randn(2, 3, 32, 32, 32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_a_middle_skip_changes_nothing_at_first() -> None:
    """What was trained without it can be trained on with it."""
    plain = NetworkConfig(width=4, stem_size=3, pyramid_width=8, decoder_width=4, refine_width=4)
    torch.manual_seed(0)
    before = build_network(plain, 3).eval()
    after = build_network(replace(plain, middle_width=4), 3).eval()
    missing, unexpected = after.load_state_dict(before.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"middle"}
    x = torch.randn(2, 3, 32, 32, 32)
    with torch.no_grad():
        # But for the context, which is now resized in two steps.
        assert torch.allclose(before(x), after(x), atol=1e-3)


def test_detail_tells_single_voxels_apart_where_they_are() -> None:
    config = NetworkConfig(
        width=4, stem_size=3, pyramid_width=8, decoder_width=4, refine_width=4, detail_width=4
    )
    torch.manual_seed(0)
    network = build_network(config, 3).eval()
    x = torch.randn(1, 3, 32, 32, 32)
    with torch.no_grad():
        first = network(x)[0, 0]
        cells = first.reshape(16, 2, 16, 2, 16, 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 8)
        assert cells.std(dim=1).max() < 1e-6  # alike in a cell, until it has learnt
        assert cells.std() > 1e-3
        # A voxel's own output channel is the one at its place in the cell.
        for place, (dz, dy, dx) in enumerate(((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))):
            network.classifier.voxels.bias.zero_()
            network.classifier.voxels.bias[(0, 1, 2, 4)[place]] = 1
            changed = network(x)[0, 0] - first
            expected = torch.zeros_like(changed)
            expected[dz::2, dy::2, dx::2] = 1
            assert torch.allclose(changed, expected, atol=1e-5)
