"""The heads in a model file, without the package that made them."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clickseg_infer as cs
from clickseg_infer.model import read_heads, read_model_file
from clickseg_infer.refinement.heads import (
    POINTS,
    Head,
    Level,
    Shape,
    heads_from_json,
    heads_to_json,
    with_outputs,
)

LEVELS = (
    Level("middle", 8, 16, 0, "middle_skip", 2, whole=True),
    Level("decoder", 4, 8, 2, "low_level", 3),
    Level("voxels", 1, 4, 0, "", 0),
)
HEAD = Head(Shape("context", 5, 16, LEVELS), ("a", "b"), b"\x00forward", b"\xffgradient")


def test_heads_survive_json() -> None:
    text = heads_to_json({"fbrs-b": HEAD})
    assert "\n" not in text
    (point, read), *more = heads_from_json(text).items()
    assert more == []
    assert point == "fbrs-b"
    assert read.shape == HEAD.shape
    assert (read.weights, read.forward, read.gradient) == (
        HEAD.weights,
        HEAD.forward,
        HEAD.gradient,
    )
    assert heads_from_json("{}") == {}


def damaged(**changes: object) -> str:
    values = json.loads(heads_to_json({"fbrs-b": HEAD}))
    values["fbrs-b"] |= changes
    return json.dumps(values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"fbrs-b": 3}',
        '{"fbrs-b": {}}',
        damaged(shape=3),
        damaged(shape={"levels": []}),
        damaged(shape={"levels": [{"name": "decoder", "smell": 3}]}),
        damaged(weights=None),
        damaged(forward="x"),
        damaged(gradient=4),
    ],
)
def test_heads_that_cannot_be_read_are_said(text: str) -> None:
    with pytest.raises(cs.ModelError, match="its heads cannot be read"):
        heads_from_json(text)


def test_a_weight_that_is_not_there_is_named(tiny_refinable: Path) -> None:
    _, content = read_model_file(tiny_refinable)
    head = read_heads(content)["fbrs-b"]
    other = Head(head.shape, (*head.weights, "nowhere.weight"), head.forward, head.gradient)
    with pytest.raises(cs.ModelError, match=r"no weights \['nowhere\.weight'\]"):
        other.logits_graph(content)
    with pytest.raises(cs.ModelError, match="no weights"):
        head.gradient_graph(b"")


def test_shapes_say_what_is_there(tiny_refinable: Path) -> None:
    spec, content = read_model_file(tiny_refinable)
    heads = read_heads(content)
    assert set(heads) == set(POINTS)
    for point, head in heads.items():
        assert head.shape.features == POINTS[point]
        shapes = head.shape.tensor_shapes(spec.patch_size)
        assert set(shapes) == set(head.shape.tensors)
        assert shapes[POINTS[point]][1] == head.shape.channels
    assert [heads[point].shape.windowed for point in POINTS] == [False, False, True]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_to_heads_goes_unnoticed(
    data: st.DataObject, tiny_refinable: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(tiny_refinable.read_bytes())
    begin = content.index(b"clickseg.heads")
    position = data.draw(st.integers(begin, len(content) - 1), label="position")
    content[position] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path = tmp_path_factory.mktemp("damage") / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(cs.ModelError, match="damaged"):
        read_model_file(path)


def test_heads_of_another_model_are_damage(tiny_refinable: Path, tmp_path: Path) -> None:
    content = tiny_refinable.read_bytes()
    heads = read_heads(content)
    own = base64.b64encode(heads["fbrs-b"].gradient)
    other = base64.b64encode(bytes(reversed(heads["fbrs-b"].gradient)))
    assert content.count(own) == 1
    (tmp_path / "m.onnx").write_bytes(content.replace(own, other))
    with pytest.raises(cs.ModelError, match=r"m\.onnx: damaged"):
        cs.load_model(tmp_path / "m.onnx", refine="fbrs")


def test_outputs_can_be_added_to_a_network() -> None:
    pytest.importorskip("onnx")
    from graphs import network_onnx

    from clickseg_infer.engines import Network, open_engine

    more = with_outputs(network_onnx(), ["hidden"])
    batch = np.random.default_rng(0).normal(size=(1, 3, 4, 4, 4)).astype(np.float32)
    for engine in ("openvino", "onnxruntime"):
        running = open_engine(Network(more, (4, 4, 4)), engine, "float32")
        found = running.run_graph({"input": batch})
        assert np.array_equal(found["hidden"], np.maximum(batch, 0))
        assert found["logits"] == pytest.approx(found["hidden"].sum(1, keepdims=True), abs=1e-5)
        running.close()


@pytest.mark.parametrize(
    ("method", "error", "said"),
    [
        ("magic", cs.EngineError, "unknown refinement 'magic', allowed are none, fbrs, fbrs-a"),
        ("fbrs", cs.ModelError, "no head for fbrs-b; export its checkpoint"),
        ("fbrs-c", cs.ModelError, "no head for fbrs-c"),
    ],
)
def test_what_cannot_refine_is_refused(
    tiny_onnx: Path, method: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        cs.load_model(tiny_onnx, refine=method)


def test_a_model_says_how_it_refines(tiny_refinable: Path) -> None:
    for method, point in (("none", "none"), ("fbrs", "fbrs-b"), ("fbrs-a", "fbrs-a")):
        with cs.load_model(tiny_refinable, refine=method) as model:
            assert model.refine == point
            assert (model.refiner is None) == (method == "none")
