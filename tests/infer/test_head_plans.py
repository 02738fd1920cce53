"""What f-BRS runs compiles for GPUs too."""

import importlib.util

import pytest

from clickseg_infer.engines.plan_builder import Profile, build_plan
from clickseg_infer.model import DEFAULT_MODEL, read_heads, read_network
from clickseg_infer.refinement.heads import POINTS, with_outputs
from clickseg_infer.refinement.network_end import end_of, end_shapes
from clickseg_infer.refinement.windows import WINDOW, input_shapes


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)
@pytest.mark.parametrize("point", POINTS)
def test_the_bundled_models_heads_compile(point: str) -> None:
    _, network = read_network(DEFAULT_MODEL)
    head = read_heads(network.content)[point]
    windows = input_shapes(head.shape, network.patch, WINDOW, -1)
    given = {name: sizes for name, sizes in windows.items() if name != "d_logits"}
    for content, shapes in (
        (end_of(network.content, head.shape), end_shapes(head.shape, network.patch)),
        (head.logits_graph(network.content), given),
        (head.gradient_graph(network.content), windows),
        (with_outputs(network.content, head.shape.tensors), None),
    ):
        assert build_plan("tensorrt-rtx", content, Profile(), ("SM89",), shapes)[1:4] == b"trt"
