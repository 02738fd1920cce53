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
    assert round(counter.get_total_flops() / 1e9) == 15
    assert round(weights / 1e6, 1) == 5.1


@pytest.mark.parametrize("refine", [0, 4])
def test_every_weight_learns(refine: int) -> None:
    config = NetworkConfig(width=4, pyramid_width=8, decoder_width=4, refine_width=refine)
    network = build_network(config, 3)
    network(torch.randn(2, 3, 32, 32, 32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_skips_change_nothing_at_first() -> None:
    """What was trained without them can be trained on with them."""
    plain = NetworkConfig(width=4, stem_size=3, pyramid_width=8, decoder_width=4, refine_width=4)
    rich = replace(plain, middle_width=4, detail_width=4)
    torch.manual_seed(0)
    before = build_network(plain, 3).eval()
    after = build_network(rich, 3).eval()
    missing, unexpected = after.load_state_dict(before.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"middle", "detail"}
    x = torch.randn(2, 3, 32, 32, 32)
    with torch.no_grad():
        # But for the context, which is now resized in two steps.
        assert torch.allclose(before(x), after(x), atol=1e-3)
        for parameter in after.detail.parameters():
            parameter.add_(0.1)
        changed = after(x) - before(x)
    assert changed.std() > 0
    # Single voxels differ, which nothing interpolated from stride 2 can give.
    assert (changed[..., 1:] - changed[..., :-1]).abs().max() > 0.1 * changed.std()
