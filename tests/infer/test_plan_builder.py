"""TensorRT-RTX compiles on the CPU: that proves parsing and compiling, not numbers or speed."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from graphs import further_outputs, several_onnx

import clickseg_infer as cs
from clickseg_infer.engines import plan_builder
from clickseg_infer.engines.plan_builder import (
    Profile,
    build_plan,
    capabilities_of,
    choose_builder,
    load_builder,
)

RTX = "tensorrt-rtx"
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed"
)


def an_onnx(*nodes: tuple[str, list[str], list[str]], inputs: int = 1) -> bytes:
    """A model of these nodes (operator, inputs, outputs) on patches of 16^3."""
    from onnx import TensorProto, helper

    def value(name: str) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, 16, 16, 16])

    names = ["input", "other"][:inputs]
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "graph",
        [value(name) for name in names],
        [value("logits")],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


RELU = ("Relu", ["input"], ["logits"])


@needs_rtx
@pytest.mark.parametrize("capabilities", [(), ("SM86",), ("SM86", "SM89", "SM120"), ("SM75",)])
def test_a_plan_compiles(capabilities: tuple[str, ...]) -> None:
    plan = build_plan(RTX, an_onnx(RELU), Profile(), capabilities)
    assert len(plan) > 1000


SHAPES = {"features": (-1, 3, 2), "bias": (3, 1)}


@needs_rtx
@pytest.mark.parametrize("batch", [-1, 2])
def test_a_plan_of_several_inputs_and_outputs_compiles(batch: int) -> None:
    content = several_onnx() + further_outputs("squares")
    plan = build_plan(RTX, content, Profile(), shapes={**SHAPES, "features": (batch, 3, 2)})
    assert len(plan) > 1000


@needs_rtx
@pytest.mark.parametrize(
    "change",
    [
        {"features": (-1, 3, -1)},
        {"features": (-1, 4, 2)},
        {"bias": (3,)},
        {"bias": (-1, 1)},
        {"other": (1,)},
    ],
)
def test_shapes_that_are_not_the_graphs_are_one_line(change: dict) -> None:
    told = r"takes features \(-1, 3, -1\), bias \(3, 1\) and is asked to take features \(-1, "
    with pytest.raises(cs.EngineError, match=told):
        build_plan(RTX, several_onnx(), Profile(), shapes={**SHAPES, **change})


@needs_rtx
def test_what_it_cannot_compile_is_one_line(tiny_onnx: Path) -> None:
    content = tiny_onnx.read_bytes()
    cases = [
        (an_onnx(("NoSuchOperator", ["input"], ["logits"])), (), "NoSuchOperator"),
        (
            an_onnx(("Add", ["input", "other"], ["logits"]), inputs=2),
            (),
            "one input, or shapes for several, and an output, not 2 and 1",
        ),
        (b"not a model", (), "cannot read the model"),
        (b"", (), "an output, not 0 and 0"),
        (content, ("SM75",), r"for SM75: .*FP32 3D convolution is not supported$"),
        (content, ("SM13", "SM86"), r"unknown compute capability SM13, allowed are SM75, "),
    ]
    for model, capabilities, reason in cases:
        with pytest.raises(cs.EngineError, match=reason) as caught:
            build_plan(RTX, model, Profile(), capabilities)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    build_plan(RTX, an_onnx(RELU), Profile())  # nothing of an earlier failure is left


@pytest.mark.parametrize(
    "batches", [(4, 2, 1), (1, 3, 2), (0, 1, 1), (2, 1, 4), (1, 1, 257), (1, 1, 2.5), (1, 1, True)]
)
def test_an_inverted_profile_is_refused(batches: tuple[int, int, int]) -> None:
    with pytest.raises(cs.EngineError, match=f"must rise from 1 to 256, not {batches[0]}, "):
        Profile(*batches)


class Settings:
    """A builder's settings, which remember what they were told."""

    def __init__(self, real: object) -> None:
        self.__dict__["real"] = real
        self.__dict__["told"] = []

    def __getattr__(self, name: str) -> object:
        found = getattr(self.real, name)
        if not callable(found):
            return found

        def call(*arguments: object) -> object:
            self.told.append((name, *arguments))
            return found(*arguments)

        return call

    def __setattr__(self, name: str, value: object) -> None:
        self.told.append((name, value))
        setattr(self.real, name, value)


@needs_rtx
def test_the_builder_is_told_types_batches_and_that_float32_is_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trt = load_builder(RTX)
    told: list[tuple] = []
    networks: list[Any] = []

    class Builder(trt.Builder):  # type: ignore[misc, name-defined]
        def create_network(self, flags: int) -> object:
            told.append(("create_network", flags))
            networks.append(super().create_network(flags))
            return networks[-1]

        def create_optimization_profile(self) -> object:
            profile = super().create_optimization_profile()
            spy = Settings(profile)
            spy.__dict__["told"] = told
            told.append(("profile", profile))
            return spy

        def create_builder_config(self) -> object:
            spy = Settings(super().create_builder_config())
            spy.__dict__["told"] = told
            return spy

        def build_serialized_network(self, network: object, settings: Settings) -> object:
            return super().build_serialized_network(network, settings.real)

    monkeypatch.setattr(trt, "Builder", Builder)
    add = trt.IBuilderConfig.add_optimization_profile
    monkeypatch.setattr(
        trt.IBuilderConfig,
        "add_optimization_profile",
        lambda self, profile: add(self, getattr(profile, "real", profile)),
    )
    build_plan(RTX, an_onnx(RELU), Profile(1, 2, 3), ("SM89", "SM86", "SM89"))
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert ("create_network", strongly_typed) in told
    assert ("clear_flag", trt.BuilderFlag.TF32) in told
    sizes = (1, 16, 16, 16)
    assert ("set_shape", "input", (1, *sizes), (2, *sizes), (3, *sizes)) in told
    assert ("num_compute_capabilities", 2) in told
    assert ("set_compute_capability", trt.ComputeCapability.SM86, 1) in told
    build_plan(RTX, several_onnx() + further_outputs("squares"), Profile(1, 2, 3), shapes=SHAPES)
    assert networks[-1].name == "sum"  # by which the engine knows its first output
    assert ("set_shape", "features", (1, 3, 2), (2, 3, 2), (3, 3, 2)) in told
    assert ("set_shape", "bias", (3, 1), (3, 1), (3, 1)) in told


def test_full_tensorrt_is_not_touched_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.util.find_spec

    def found(name: str, *rest: object) -> object:
        return object() if name == "tensorrt" else real(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # whose import fails if it is tried

    def no_gpu() -> None:
        raise cs.EngineError("no NVIDIA GPU: test")

    monkeypatch.setattr(plan_builder, "find_gpu", no_gpu)
    with pytest.raises(cs.EngineError, match="compiles only where a GPU is: no NVIDIA GPU: test"):
        load_builder("tensorrt")
    with pytest.raises(cs.EngineError, match="compiles only where a GPU is"):
        choose_builder("tensorrt")


@needs_rtx
def test_the_builder_is_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_builder(RTX) == RTX
    assert {"SM75", "SM86", "SM89", "SM120"} <= set(capabilities_of(RTX))
    load = plan_builder.load_builder
    monkeypatch.setattr(
        plan_builder, "load_builder", lambda name: object() if name == "tensorrt" else load(name)
    )
    assert choose_builder() == "tensorrt"
    with pytest.raises(cs.EngineError, match="for the GPU that it runs on, for no other"):
        build_plan("tensorrt", an_onnx(RELU), Profile(), ("SM89",))
    with pytest.raises(cs.EngineError, match="unknown builder 'tvm'"):
        choose_builder("tvm")


def test_no_builder_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(cs.EngineError, match=r"clickseg\[trt\].*clickseg\[trt-rtx\]"):
        choose_builder()
