"""Graphs of several named inputs and outputs, by every engine that runs on a CPU."""

from pathlib import Path

import numpy as np
import pytest
from graphs import further_outputs, network_onnx, several_onnx

import clickseg_infer as cs
from clickseg_infer.engines import Network, compiled_cache
from clickseg_infer.engines.shared import SharedEngine

ON_CPU = ("openvino", "onnxruntime")
SEVERAL = several_onnx() + further_outputs("squares")
SHAPES = {"features": (-1, 3, 2), "bias": (3, 1)}
PATCH = (4, 4, 4)


def opened(name: str, content: bytes, shapes: dict | None = SHAPES) -> cs.Engine:
    return cs.open_engine(Network(content, PATCH, shapes=shapes), name, "float32")


def some_inputs(rng: np.random.Generator, batch: int) -> dict[str, np.ndarray]:
    """In an order, and with strides, that are not the graph's."""
    features = rng.normal(size=(batch, 4, 3)).astype(np.float32).swapaxes(1, 2)[:, :, ::2]
    return {"bias": rng.normal(size=(3, 1)).astype(np.float32), "features": features}


@pytest.mark.parametrize("name", ON_CPU)
def test_a_graph_runs_by_names(name: str, rng: np.random.Generator) -> None:
    engine = SharedEngine(opened(name, SEVERAL))
    kept = []
    for batch in (1, 3, 1, 3):
        inputs = some_inputs(rng, batch)
        before = {key: array.copy() for key, array in inputs.items()}
        answers = engine.run_graph(inputs)
        total = before["features"] + before["bias"]
        assert list(answers) == ["sum", "squares"]
        assert {array.dtype for array in answers.values()} == {np.dtype(np.float32)}
        assert all(np.array_equal(inputs[key], before[key]) for key in inputs)
        kept.append((answers, {"sum": total, "squares": (total**2).sum((1, 2))}))
    for answers, expected in kept:  # after all that ran since
        for key, array in expected.items():
            assert answers[key].shape == array.shape
            assert np.abs(answers[key] - array).max() < 1e-5
    engine.close()
    with pytest.raises(cs.EngineError, match="closed"):
        engine.run_graph(inputs)


@pytest.mark.parametrize("name", ON_CPU)
def test_what_does_not_fit_is_one_line(name: str, rng: np.random.Generator) -> None:
    engine, inputs = opened(name, SEVERAL), some_inputs(rng, 2)
    takes = rf"{name} failed: the model takes features \(-1, 3, 2\), bias \(3, 1\), not "
    wrong: list[tuple[dict, str]] = [
        ({}, "nothing$"),
        ({**inputs, "other": inputs["bias"]}, r"bias \(3, 1\), features \(2, 3, 2\), other \(3, 1"),
        ({"features": inputs["features"], "offset": inputs["bias"]}, ".*offset"),
        ({**inputs, "bias": np.zeros(3, np.float32)}, r"bias \(3,\)"),
        ({**inputs, "features": np.zeros((2, 3, 4), np.float32)}, r".*features \(2, 3, 4\)"),
    ]
    for given, reason in wrong:
        with pytest.raises(cs.EngineError, match=takes + reason) as caught:
            engine.run_graph(given)
        assert "\n" not in str(caught.value)
    with pytest.raises(cs.EngineError, match=f"{name} failed"):
        engine.run(inputs["features"])
    engine.run_graph(inputs)


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize(
    "shapes",
    [
        {"features": (-1, 3, 2)},
        {"features": (-1, 3, -1), "bias": (3, 1)},
        {"features": (-1, 4, 2), "bias": (3, 1)},
        {"features": (-1, 3, 2), "bias": (-1, 1)},
    ],
)
def test_shapes_that_are_not_the_graphs_are_refused(name: str, shapes: dict) -> None:
    with pytest.raises(cs.EngineError, match="and is asked to take features") as caught:
        opened(name, SEVERAL, shapes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shapes", [None, {"input": (-1, 3, *PATCH)}])
def test_further_outputs_follow_the_logits(shapes: dict | None, rng: np.random.Generator) -> None:
    batch = rng.normal(size=(3, 3, *PATCH)).astype(np.float32)
    content = network_onnx() + further_outputs("hidden")
    count = 3 if shapes else 1  # without shapes, OpenVINO has the network for one patch
    answers = []
    for name in ON_CPU:
        engine = opened(name, content, shapes)
        logits = opened(name, network_onnx(), None).run(batch)
        assert np.array_equal(engine.run(batch), logits)
        answers.append(engine.run_graph({"input": batch[:count]}))
        assert np.array_equal(answers[-1]["logits"], logits[:count])
        assert np.array_equal(answers[-1]["hidden"], np.maximum(batch[:count], 0))
    for key in ("logits", "hidden"):
        assert np.abs(answers[0][key] - answers[1][key]).max() < 1e-5


def test_openvinos_cache_tells_shapes_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setenv("CLICKSEG_CACHE", str(tmp_path))
    inputs = some_inputs(rng, 3)
    first = opened("openvino", SEVERAL).run_graph(inputs)
    (entry,) = compiled_cache.list_entries()
    assert entry.about is not None
    assert entry.about["shapes"] == {"features": [-1, 3, 2], "bias": [3, 1]}
    again = opened("openvino", SEVERAL).run_graph(inputs)
    assert list(first) == list(again)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert len(compiled_cache.list_entries()) == 1
    with pytest.raises(cs.EngineError, match=r"takes features \(1, 3, 2\)"):
        opened("openvino", SEVERAL, {**SHAPES, "features": (1, 3, 2)}).run_graph(inputs)
    opened("openvino", network_onnx(), None)
    abouts = [entry.about or {} for entry in compiled_cache.list_entries()]
    assert ["shapes" in about for about in abouts].count(False) == 1
    assert len(abouts) == 3


def test_a_function_may_have_a_graph() -> None:
    shared = np.zeros(2, np.float32)
    with pytest.raises(cs.EngineError, match="stand-in has no graph"):
        cs.FunctionEngine(np.abs, "stand-in").run_graph({"x": shared})
    engine = cs.FunctionEngine(np.abs, graph=lambda inputs: {"y": inputs["x"]})
    answers = engine.run_graph({"x": shared})
    shared += 1
    assert np.array_equal(answers["y"], [0, 0])
