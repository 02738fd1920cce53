"""Plans, as far as a machine without a GPU can show; see fake_gpu. The rest is in tests/gpu."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import GPU, Cuda, TensorRt, put_builder, put_gpu

import clickseg_infer as cs
from clickseg_infer.engines import Network, compiled_cache, plans, tensorrt_gpu
from clickseg_infer.engines.cuda_device import Device
from clickseg_infer.engines.nvidia import Gpu
from clickseg_infer.engines.plan_builder import Profile
from clickseg_infer.engines.plans import (
    compiled,
    plan_path,
    planned,
    read_plan,
    record_path,
    write_plan,
)

BATCH = np.random.default_rng(0).normal(size=(5, 3, 4, 4, 4)).astype(np.float32)


def first_channel(batch: np.ndarray) -> np.ndarray:
    return batch[:, :1] * 2


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    put_gpu(monkeypatch)
    return cuda


@pytest.fixture
def trt(cuda: Cuda) -> TensorRt:
    return TensorRt(cuda, first_channel)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    monkeypatch.setenv("CLICKSEG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "m.onnx").write_bytes(b"a model")
    return Network(b"a model", (4, 4, 4), path=tmp_path / "m.onnx")


def put_plan(network: Network, **changes: object) -> Path:
    """A plan beside the model, with a record that may not be true."""
    assert network.path is not None
    plan, record = compiled(planned("tensorrt", network, GPU), network)
    path = plan_path(network.path)
    write_plan(path, plan, replace(record, **changes))  # type: ignore[arg-type]
    return path


def test_batches_go_through_in_parts_that_the_plan_takes(
    cuda: Cuda, trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_builder(monkeypatch, trt, lambda: b"plan 2")
    wanted = planned("tensorrt", network, GPU, Profile(largest=2))
    engine = tensorrt_gpu.PlanEngine(*compiled(wanted, network), Device())
    assert (engine.name, engine.precision) == ("tensorrt", "float32")
    before = BATCH.copy()
    assert np.array_equal(engine.run(BATCH), first_channel(BATCH))
    assert np.array_equal(BATCH, before)
    assert np.array_equal(engine.run(BATCH[:, ::-1])[:, 0], BATCH[:, 2] * 2)  # not contiguous
    assert cuda.allocated == 2  # one buffer in, one out, kept from call to call
    engine.close()
    assert (cuda.buffers, cuda.streams, len(trt.open_plans)) == ({}, 0, 0)
    with pytest.raises(cs.EngineError, match="closed"):
        engine.run(BATCH)
    engine.close()


def test_buffers_grow(
    cuda: Cuda, trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_builder(monkeypatch, trt)
    with_plan = tensorrt_gpu.open_network("tensorrt", network, "auto", asked=True)
    for count in (1, 3, 2):
        assert np.array_equal(with_plan.run(BATCH[:count]), first_channel(BATCH[:count]))
    assert (cuda.allocated, len(cuda.buffers)) == (4, 2)


SHAPES = {"features": (-1, 3, 2), "bias": (3, 1)}


@pytest.fixture
def several(network: Network, trt: TensorRt, monkeypatch: pytest.MonkeyPatch) -> Network:
    """A network of several inputs and outputs, which `trt` runs."""
    put_builder(monkeypatch, trt)
    trt.inputs, trt.outputs, trt.network_name = SHAPES, ("sum", "squares"), "sum"
    trt.function = lambda x, bias: (x + bias, ((x + bias) ** 2).sum((1, 2)))
    return replace(network, shapes=SHAPES)


def test_a_graph_runs_by_names(
    cuda: Cuda, trt: TensorRt, several: Network, rng: np.random.Generator
) -> None:
    engine = tensorrt_gpu.open_network("tensorrt", several, "auto", asked=True)
    inputs = {
        "bias": rng.normal(size=(3, 1)).astype(np.float32),
        "features": rng.normal(size=(2, 4, 3)).astype(np.float32).swapaxes(1, 2)[:, :, :2],
    }
    before = {name: array.copy() for name, array in inputs.items()}
    for count in (1, 2):
        given = {**inputs, "features": inputs["features"][:count]}
        answers = engine.run_graph(given)
        total, squares = trt.function(given["features"], given["bias"])
        assert np.array_equal(answers["sum"], total)
        assert np.array_equal(answers["squares"], squares)
    assert cuda.allocated == 7  # all but the bias's grew
    engine.run_graph({name: 0 * array for name, array in inputs.items()})
    assert np.array_equal(answers["sum"], total)  # the caller keeps it
    assert all(np.array_equal(inputs[name], before[name]) for name in inputs)
    wrong = [
        ({"features": inputs["features"]}, r"takes features \(-1, 3, 2\), bias \(3, 1\), not feat"),
        ({**inputs, "bias": np.zeros((3, 2))}, r"not bias \(3, 2\), features \(2, 3, 2\)"),
        (
            {**inputs, "features": np.zeros((5, 3, 2))},
            "tensorrt: the plan takes at most 4 .* not 5",
        ),
    ]
    for given, reason in wrong:
        with pytest.raises(cs.EngineError, match=reason):
            engine.run_graph(given)
    with pytest.raises(cs.EngineError, match="not one input"):
        engine.run(BATCH)
    cuda.refused = "squares"
    with pytest.raises(cs.EngineError, match=r"does not take features \(2, 3, 2\), bias \(3, 1\)"):
        engine.run_graph(inputs)
    engine.close()
    with pytest.raises(cs.EngineError, match="closed"):
        engine.run_graph(inputs)


def test_of_several_outputs_the_networks_first_is_the_logits(
    trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_builder(monkeypatch, trt)
    trt.outputs, trt.network_name = ("logits", "further"), "logits"
    trt.function = lambda batch: (first_channel(batch), batch[:, :, 0])
    engine = tensorrt_gpu.open_network("tensorrt", network, "auto", asked=True)
    assert np.array_equal(engine.run(BATCH), first_channel(BATCH))
    answers = engine.run_graph({"input": BATCH[:3]})
    assert np.array_equal(answers["logits"], first_channel(BATCH[:3]))
    assert np.array_equal(answers["further"], BATCH[:3, :, 0])


def test_a_plan_serves_its_shapes_and_no_others(
    trt: TensorRt, network: Network, several: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = put_builder(monkeypatch, trt)
    path = put_plan(several)
    assert read_plan(path)[1].shapes == SHAPES
    others = replace(network, shapes={**SHAPES, "features": (2, 3, 2)})
    for asked in (several, network, others, network, others):
        tensorrt_gpu.open_network("tensorrt", asked, "auto", asked=False)
    assert counted == ["tensorrt"] * 3  # by put_plan, and for each of the others
    assert len(compiled_cache.list_entries()) == 2
    put_plan(network)
    assert "shapes" not in json.loads(record_path(path).read_text())  # as it always was
    assert read_plan(path)[1].shapes is None


@pytest.mark.parametrize("call", ["shape", "input", "logits", "execute"])
def test_what_a_plan_refuses_is_one_line(
    call: str, cuda: Cuda, trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_builder(monkeypatch, trt)
    engine = tensorrt_gpu.open_network("tensorrt", network, "auto", asked=True)
    cuda.refused = call
    with pytest.raises(
        cs.EngineError, match=r"tensorrt failed: the plan does not take input \(4, 3"
    ):
        engine.run(BATCH)


def test_closing_frees_all_that_it_can(
    cuda: Cuda, trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_builder(monkeypatch, trt)
    engine = tensorrt_gpu.open_network("tensorrt", network, "auto", asked=True)
    engine.run(BATCH)
    cuda.fail = "free"
    with pytest.raises(cs.EngineError, match="CUDA failed"):
        engine.close()
    assert (cuda.buffers, cuda.streams, len(trt.open_plans)) == ({}, 0, 0)


@pytest.mark.parametrize("call", ["stream", "malloc", "copy", "wait"])
def test_what_cuda_refuses_is_one_line(
    call: str, cuda: Cuda, trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_builder(monkeypatch, trt)
    cuda.fail = call
    with pytest.raises(cs.EngineError, match="CUDA failed: 2"):
        tensorrt_gpu.open_network("tensorrt", network, "auto", asked=True).run(BATCH)


def test_only_who_asks_waits_for_a_plan_and_only_once(
    cuda: Cuda, trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = put_builder(monkeypatch, trt)
    with pytest.raises(cs.EngineError, match=r"no plan of this model; clickseg export .* --trt"):
        tensorrt_gpu.open_network("tensorrt", network, "auto", asked=False)
    assert (counted, cuda.streams) == ([], 0)
    for asked in (True, False, True):
        tensorrt_gpu.open_network("tensorrt", network, "auto", asked=asked)
    assert counted == ["tensorrt"]
    (entry,) = compiled_cache.list_entries()
    assert entry.about is not None
    assert entry.about["device"] == GPU.name
    assert entry.about["model"] == network.sha256
    with pytest.raises(cs.EngineError, match="in float32, not float16"):
        tensorrt_gpu.open_network("tensorrt", network, "float16", asked=True)


def test_the_plan_beside_the_model_is_taken(
    trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = put_builder(monkeypatch, trt)
    put_plan(network)
    engine = tensorrt_gpu.open_network("tensorrt", network, "auto", asked=False)
    assert np.array_equal(engine.run(BATCH), first_channel(BATCH))
    assert counted == ["tensorrt"]  # by put_plan
    assert compiled_cache.list_entries() == []


def test_the_other_builders_plan_is_none_of_this_ones(
    trt: TensorRt,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted = put_builder(monkeypatch, trt)
    put_plan(network, builder="tensorrt-rtx", device="")
    with pytest.raises(cs.EngineError, match="tensorrt has no plan of this model"):
        tensorrt_gpu.open_network("tensorrt", network, "auto", asked=False)
    engine = tensorrt_gpu.open_network("tensorrt-rtx", network, "auto", asked=False)
    assert engine.name == "tensorrt-rtx"
    assert counted == ["tensorrt"]  # by put_plan
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"onnx_sha256": "0"}, "another model"),
        ({"version": "10.13.0"}, "by version 10.13.0, and here is 10.13.1"),
        ({"precision": "float16"}, "said to be float16, but its model is float32"),
        ({"device": "NVIDIA Other"}, f"for NVIDIA Other, and here is {GPU.name}"),
        ({"compute_capabilities": ("SM86",)}, "for SM86, and here is SM89"),
        ({"plan_sha256": "0"}, "damaged"),
    ],
)
def test_a_plan_for_elsewhere_is_compiled_anew_once_and_said_so(
    change: dict,
    reason: str,
    trt: TensorRt,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted = put_builder(monkeypatch, trt)
    path = put_plan(network, **change)
    before = path.read_bytes(), record_path(path).read_bytes()
    for lines in (2, 1):
        caplog.clear()
        tensorrt_gpu.open_network("tensorrt", network, "auto", asked=False)
        assert len(caplog.messages) == lines  # the second time it is in the cache
        assert caplog.messages[0].startswith(f"{path} cannot be used: ")
        assert reason in caplog.messages[0]
    assert counted == ["tensorrt"] * 2  # by put_plan, and once into the cache
    assert (path.read_bytes(), record_path(path).read_bytes()) == before


def test_what_cannot_be_opened_is_compiled_anew_once(
    trt: TensorRt,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plans_made = iter([b"of another driver", b"plan 4"])
    counted = put_builder(monkeypatch, trt, lambda: next(plans_made))
    path = put_plan(network)
    for _ in range(3):
        engine = tensorrt_gpu.open_network("tensorrt", network, "auto", asked=False)
        assert np.array_equal(engine.run(BATCH), first_channel(BATCH))
    assert counted == ["tensorrt"] * 2
    refused = f"{path} cannot be used: tensorrt refuses it: bad magic"
    assert caplog.messages[0] == caplog.messages[2] == caplog.messages[3] == refused
    assert "compiling a plan" in caplog.messages[1]


def test_what_is_wrong_with_the_machine_compiles_nothing(
    cuda: Cuda, trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = put_builder(monkeypatch, trt)
    put_plan(network)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(cs.EngineError, match="needs cuda-bindings"):
        tensorrt_gpu.open_network("tensorrt", network, "auto", asked=True)
    assert counted == ["tensorrt"]  # by put_plan


def test_a_runtime_without_a_driver_is_one_line(
    trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    put_builder(monkeypatch, trt)
    monkeypatch.setattr(trt, "Runtime", none)
    with pytest.raises(cs.EngineError, match="tensorrt failed: pybind11"):
        tensorrt_gpu.open_network("tensorrt", network, "auto", asked=True)


def test_a_damaged_entry_of_the_cache_is_compiled_anew(
    trt: TensorRt,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted = put_builder(monkeypatch, trt)
    tensorrt_gpu.open_network("tensorrt", network, "auto", asked=True)
    caplog.clear()
    (entry,) = compiled_cache.list_entries()
    entry.path.write_bytes(entry.path.read_bytes()[:-1])
    tensorrt_gpu.open_network("tensorrt", network, "auto", asked=False)
    assert counted == ["tensorrt"] * 2
    assert any("damaged" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "change",
    [
        {"builder": "tensorrt-rtx"},
        {"version": "10.14"},
        {"onnx_sha256": "0"},
        {"precision": "float16"},
        {"profile": Profile(1, 1, 2)},
        {"compute_capabilities": ("SM89",), "device": ""},
        {"device": "NVIDIA Other"},
        {"shapes": {"input": (-1, 3, 4, 4, 4)}},
        {"shapes": {"input": (1, 3, 4, 4, 4)}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_circumstance_gives_another_entry(
    change: dict, trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_builder(monkeypatch, trt)
    record = planned("tensorrt", network, GPU)
    assert "shapes" not in plans._about(record)  # or the entries that there are would be lost
    compiled_cache.write_entry(plans._about(record), lambda: b"a plan")
    assert compiled_cache.has_entry(plans._about(replace(record)))
    assert not compiled_cache.has_entry(plans._about(replace(record, **change)))


def test_a_plan_is_none_until_its_record_is_written(
    trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_builder(monkeypatch, trt)
    path = put_plan(network)
    other, record = b"plan 2", planned("tensorrt", network, GPU)
    write = plans.write_whole

    def killed(target: Path, content: bytes) -> None:
        if target == record_path(path):
            raise KeyboardInterrupt
        write(target, content)

    monkeypatch.setattr(plans, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        write_plan(path, other, record)
    assert path.read_bytes() == other
    with pytest.raises(cs.EngineError, match="damaged"):
        read_plan(path)


def test_half_a_plan_is_none(
    trt: TensorRt, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_builder(monkeypatch, trt)
    path = put_plan(network)
    record = record_path(path).read_text()
    changed = [{"profile": {"smallest": 9}}, {"profile": {"largest": 2.5}}, {"shapes": [1]}]
    for text in ("", "{}", "[]", *(json.dumps({**json.loads(record), **c}) for c in changed)):
        record_path(path).write_text(text)
        with pytest.raises(cs.EngineError, match="its record cannot be read"):
            read_plan(path)
    record_path(path).unlink()
    with pytest.raises(cs.EngineError, match="cannot be read"):
        read_plan(path)


def test_rtx_compiles_for_all_that_it_can_or_for_an_older_gpu(
    trt: TensorRt,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put_builder(monkeypatch, trt)
    records = [
        plans.new_plan("tensorrt-rtx", network, Gpu("NVIDIA Test", capability))[1]
        for capability in ("SM89", "SM120", "SM75")
    ]
    assert [record.compute_capabilities for record in records] == [(), (), ("SM75",)]
    assert {record.device for record in records} == {""}
    assert len(compiled_cache.list_entries()) == 2
    put_plan(network, builder="tensorrt-rtx", device="")  # for SM80 and later
    put_gpu(monkeypatch, Gpu("NVIDIA Old", "SM75"))
    tensorrt_gpu.open_network("tensorrt-rtx", network, "auto", asked=False)
    assert "compiled for SM80 and later" in caplog.messages[0]


def test_without_a_gpu_tensorrt_is_not_even_imported(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for name in ("tensorrt", "tensorrt-rtx"):
        with pytest.raises(cs.EngineError, match="no NVIDIA GPU"):
            cs.open_engine(network, name)
