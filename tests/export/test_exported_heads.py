"""The heads that a model file carries: complete graphs once the network's weights are with them."""

import base64
import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from clickseg_export import head, head_graph, onnx_file
from clickseg_export.export_model import CheckpointOptions, export_model
from clickseg_export.onnx_file import folded, network_of, rounded
from clickseg_export.parity import example_batch
from tuned import tensors_of, tuned

import clickseg_infer as cs
from clickseg_infer.engines import Network, open_engine
from clickseg_infer.model import read_heads, read_model_file
from clickseg_infer.refinement.heads import POINTS, with_outputs
from clickseg_infer.refinement.network_end import end_of, end_shapes
from clickseg_infer.refinement.refiner import Refiner, open_refiner
from clickseg_infer.refinement.tuning import Tuning
from clickseg_train.checkpoint import read_checkpoint, write_checkpoint
from clickseg_train.networks import DeepLabV3Plus

STARTS = [(0, 0, 0), (26, 26, 26), (-2, 12, 20), (14, 8, -2)]


def opened(model: Path, point: str, engine: str) -> Refiner:
    spec, content = read_model_file(model)
    network = Network(content, spec.patch_size)
    return open_refiner(network, read_heads(content)[point], point, engine, "float32")


def check_gradients(network: DeepLabV3Plus, model: Path, point: str, engine: str) -> None:
    """A head that an engine runs gives autograd's gradients and the network's logits."""
    spec, _ = read_model_file(model)
    batch = torch.from_numpy(example_batch(spec)[:1])
    refiner = opened(model, point, engine)
    rng = np.random.default_rng(7)
    scale = rng.normal(1, 0.2, refiner.channels).astype(np.float32)
    bias = rng.normal(0, 0.2, refiner.channels).astype(np.float32)
    d_logits = np.zeros((len(STARTS), 6, 6, 6), np.float32)
    d_logits[:, 2:-2, 2:-2, 2:-2] = rng.normal(size=(len(STARTS), 2, 2, 2))
    whole = np.zeros(spec.patch_size, np.float32)
    for start, window in zip(STARTS, d_logits, strict=True):
        z, y, x = (slice(s + 2, s + 4) for s in start)
        whole[z, y, x] += window[2:-2, 2:-2, 2:-2]
    leaves = [torch.from_numpy(values).requires_grad_() for values in (scale, bias)]
    logits = tuned(network, point, batch, *leaves)
    (logits * torch.from_numpy(whole)).sum().backward()
    tuning, tensors = Tuning(scale, bias), tensors_of(network, batch)
    found = refiner.windows(tensors, STARTS).gradients(tuning, d_logits)
    for ours, leaf in zip(found, leaves, strict=True):
        theirs = leaf.grad.numpy()
        assert np.linalg.norm(theirs) > 0
        assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)
    everything = refiner.all_logits(tensors, tuning)
    assert np.abs(everything - logits.detach().numpy()).max() < 1e-4
    window = refiner.windows(tensors, STARTS).logits(tuning)[1]
    assert np.abs(window - everything[26:, 26:, 26:]).max() < 1e-5
    refiner.close()


@pytest.mark.parametrize("point", POINTS)
def test_completed_heads_are_onnx_models(tiny_refinable: Path, point: str) -> None:
    _, content = read_model_file(tiny_refinable)
    head_model = read_heads(content)[point]
    shape = head_model.shape
    for graph, inputs, outputs in (
        (head_model.logits_graph(content), shape.inputs, ["logits"]),
        (
            head_model.gradient_graph(content),
            (*shape.inputs, "d_logits"),
            ["logits", "d_scale", "d_bias"],
        ),
        (end_of(content, shape), end_shapes(shape, (32, 32, 32)), ["logits"]),
    ):
        model = onnx.load_from_string(graph)
        onnx.checker.check_model(model, full_check=True)
        assert [value.name for value in model.graph.output] == outputs
        assert {value.name for value in model.graph.input} == set(inputs)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("point", POINTS)
def test_with_features_as_they_are_the_end_gives_the_networks_logits(
    tiny_refinable: Path, point: str, engine: str
) -> None:
    options = {"engine": engine, "precision": "float32", "refine": point}
    with cs.load_model(tiny_refinable, **options) as model:
        tensors = model.engine.run_graph({"input": example_batch(model.spec)[:1]})
        ones = np.ones(model.refiner.channels, np.float32)
        logits = model.refiner.all_logits(tensors, Tuning(ones, 0 * ones))
    assert np.abs(logits - tensors["logits"][0, 0]).max() <= 1e-6 * np.abs(logits).max()


@pytest.mark.parametrize("missing", ["stem", "cells"])
def test_an_end_that_needs_the_input_is_refused(tiny_refinable: Path, missing: str) -> None:
    _, content = read_model_file(tiny_refinable)
    shape = read_heads(content)["fbrs-b"].shape
    levels = tuple(
        dataclasses.replace(level, skip="") if level.skip == missing else level
        for level in shape.levels
    )
    assert levels != shape.levels
    with pytest.raises(cs.ModelError, match=r"the network's end also needs \['input'\]"):
        end_of(content, dataclasses.replace(shape, levels=levels))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("point", POINTS)
def test_both_engines_give_torchs_gradients(
    tiny_checkpoint: Path, tiny_refinable: Path, point: str, engine: str
) -> None:
    network = folded(network_of(read_checkpoint(tiny_checkpoint)))
    check_gradients(network, tiny_refinable, point, engine)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_the_network_gives_the_tensors_that_heads_read(
    tiny_checkpoint: Path, tiny_refinable: Path, engine: str
) -> None:
    network = folded(network_of(read_checkpoint(tiny_checkpoint)))
    spec, content = read_model_file(tiny_refinable)
    batch = example_batch(spec)[:1]
    expected = tensors_of(network, torch.from_numpy(batch))
    for point, head_model in read_heads(content).items():
        names = head_model.shape.tensors
        giving = Network(with_outputs(content, names), spec.patch_size)
        running = open_engine(giving, engine, "float32")
        found = running.run_graph({"input": batch})
        running.close()
        assert set(found) == {"logits", *names}, point
        for name in names:
            assert np.abs(found[name] - expected[name]).max() < 1e-4


def test_weights_are_not_stored_twice(tiny_onnx: Path, tiny_refinable: Path) -> None:
    plain, with_heads = tiny_onnx.read_bytes(), tiny_refinable.read_bytes()
    assert len(with_heads) < 1.3 * len(plain)  # the optimiser unfolds small kernels
    heads = read_heads(with_heads)
    assert set(heads) == set(POINTS)
    assert read_heads(plain) == {}
    stored = {weight.name for weight in onnx.load_from_string(plain).graph.initializer}
    for head_model in heads.values():
        assert head_model.weights
        assert stored.issuperset(head_model.weights)
    strings = (base64.b64encode(h.forward) for h in heads.values())
    assert all(text in with_heads for text in strings)


def test_a_model_with_heads_is_the_same_network(tiny_onnx: Path, tiny_refinable: Path) -> None:
    batch = example_batch(read_model_file(tiny_onnx)[0])[:1]
    answers = []
    for path in (tiny_onnx, tiny_refinable):
        with cs.load_model(path, engine="onnxruntime") as model:
            answers.append(model.engine.run(batch))
    assert np.array_equal(*answers)


def test_half_weights_serve_heads_too(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_graph, "POINTS", ("fbrs-b",))
    out = tmp_path / "half.onnx"
    result = export_model(tiny_checkpoint, out, CheckpointOptions(half_weights=True))
    assert 0 < result.parity.gradients <= 1e-4
    _, content = read_model_file(out)
    kinds = {w.name: w.data_type for w in onnx.load_from_string(content).graph.initializer}
    shared = [kinds[name] for name in read_heads(content)["fbrs-b"].weights]
    assert onnx.TensorProto.FLOAT16 in shared
    network = rounded(folded(network_of(read_checkpoint(tiny_checkpoint))))
    for engine in ("openvino", "onnxruntime"):
        check_gradients(network, out, "fbrs-b", engine)


@pytest.mark.parametrize("step", ["_rectified", "_masked", "_convolved"])
def test_a_wrong_gradient_is_refused_and_nothing_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    truly = getattr(head, step)

    def wrong(*arguments: torch.Tensor) -> tuple:
        answer, back = truly(*arguments)
        return answer, lambda gradient: 1.001 * back(gradient)

    monkeypatch.setattr(head, step, wrong)
    monkeypatch.setattr(head_graph, "POINTS", ("fbrs-c",))
    with pytest.raises(
        cs.ParityError, match=r"gradients of the head fbrs-c differ .* [12]\.\de-03"
    ):
        export_model(tiny_checkpoint, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_which_a_part_is_at_rest_is_refused(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """As after a training that went wrong: no gradient comes from there, so none can be checked."""
    checkpoint = read_checkpoint(tiny_checkpoint)
    checkpoint.average["decoder.1.0.1.weight"].zero_()
    checkpoint.average["decoder.1.0.1.bias"].fill_(-1)
    write_checkpoint(tmp_path / "m.ckpt", checkpoint)
    with pytest.raises(cs.ParityError, match="the head fbrs-a cannot be checked: what it tunes"):
        export_model(tmp_path / "m.ckpt", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_wrong_logit_is_refused(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truly = head._rectified

    def wrong(x: torch.Tensor) -> tuple:
        answer, back = truly(x)
        return answer + 0.01, back

    monkeypatch.setattr(head, "_rectified", wrong)
    monkeypatch.setattr(head_graph, "POINTS", ("fbrs-c",))
    with pytest.raises(cs.ParityError, match="the head fbrs-c differs by up to"):
        export_model(tiny_checkpoint, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_fewer_bits_have_no_heads(
    tiny_checkpoint: Path, tiny_refinable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "heads_of", lambda *_: pytest.fail("heads for nothing"))
    for source in (tiny_checkpoint, tiny_refinable):
        out = tmp_path / f"{source.suffix[1:]}.onnx"
        export_model(source, out, precision="fp16", force=True)
        spec, content = read_model_file(out)
        assert spec.precision == "float16"
        assert read_heads(content) == {}
        with pytest.raises(cs.ModelError, match=r"no head for fbrs-b; export .* in fp32"):
            cs.load_model(out, engine="onnxruntime", refine="fbrs")
