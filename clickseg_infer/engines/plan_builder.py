"""Compile a network to a TensorRT plan, with TensorRT or TensorRT-RTX: one code for both.

TensorRT compiles for the GPU that it finds, and crashes where there is none. TensorRT-RTX compiles
without a GPU, for all that it supports or for named compute capabilities, and finishes on the GPU.
Both are told to take the graph's types as they are: precision is the graph's, never the builder's.
"""

import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from clickseg_infer.engines.nvidia import find_gpu
from clickseg_infer.errors import EngineError, one_line

PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""The builders, and what is imported for each."""

_EXTRAS = {"tensorrt": "clickseg[trt]", "tensorrt-rtx": "clickseg[trt-rtx]"}
_CAPABILITY = "SM"  # that is how the enumeration's devices begin


@dataclass(frozen=True)
class Profile:
    """The numbers of patches in a batch that a plan takes.

    Attributes:
        smallest: at least 1.
        usual: what it is made fastest for.
        largest: at most this many.

    Raises:
        EngineError: they do not rise.
    """

    smallest: int = 1
    usual: int = 1
    largest: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.usual <= self.largest:
            raise EngineError(
                f"a profile's batches must rise from 1, not {self.smallest}, {self.usual}, "
                f"{self.largest}"
            )


def choose_builder(name: str = "auto") -> str:
    """The named builder, or for "auto" TensorRT where a GPU is there, else TensorRT-RTX.

    Raises:
        EngineError: unknown, not installed, or without the GPU that it needs.
    """
    if name != "auto":
        load_builder(name)
        return name
    reasons = []
    for candidate in PACKAGES:
        try:
            load_builder(candidate)
        except EngineError as error:
            reasons.append(str(error))
        else:
            return candidate
    raise EngineError("nothing compiles a plan here: " + "; ".join(reasons))


def load_builder(name: str) -> Any:
    """The builder's package; TensorRT's is not touched where it finds no GPU.

    Raises:
        EngineError: unknown, not installed, not importable, or without the GPU that it needs.
    """
    if name not in PACKAGES:
        raise EngineError(f"unknown builder {name!r}, allowed are {', '.join(PACKAGES)}")
    if importlib.util.find_spec(PACKAGES[name]) is None:
        raise EngineError(f"{name} is not installed: pip install '{_EXTRAS[name]}'")
    if name == "tensorrt":
        try:
            find_gpu()
        except EngineError as error:
            raise EngineError(f"tensorrt compiles only where a GPU is: {error}") from error
    try:
        return importlib.import_module(PACKAGES[name])
    except (ImportError, OSError) as error:
        raise EngineError(f"{name} cannot be imported: {one_line(error)}") from error


def capabilities_of(builder: str) -> tuple[str, ...]:
    """The compute capabilities that a builder can be told to compile for; none for TensorRT.

    Raises:
        EngineError: as `load_builder`.
    """
    known = getattr(load_builder(builder), "ComputeCapability", None)
    names = known.__members__ if builder == "tensorrt-rtx" and known is not None else ()
    return tuple(name for name in names if name.startswith(_CAPABILITY))


def build_plan(
    builder: str, content: bytes, profile: Profile, capabilities: Sequence[str] = ()
) -> bytes:
    """Compile a serialised ONNX model whose batch is open and whose other sizes are fixed.

    Args:
        builder: "tensorrt" or "tensorrt-rtx".
        content: the model.
        profile: the batches that the plan takes.
        capabilities: what TensorRT-RTX compiles for, such as "SM89"; without any, all it supports.

    Raises:
        EngineError: as `load_builder`; an unknown capability; a model that it cannot compile.
    """
    trt = load_builder(builder)
    _check_capabilities(builder, capabilities)
    log = logger_of(trt)
    log.drain()
    compiler = trt.Builder(log)
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = compiler.create_network(strongly_typed)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        errors = [parser.get_error(number) for number in range(parser.num_errors)]
        reasons = [f"{error.node_operator()}: {error.desc()}" for error in errors]
        raise EngineError(f"{builder} cannot read the model: {_first(reasons or log.drain())}")
    settings = compiler.create_builder_config()
    settings.clear_flag(trt.BuilderFlag.TF32)  # whose products are not float32
    if capabilities:
        settings.num_compute_capabilities = len(capabilities)
        for number, name in enumerate(capabilities):
            settings.set_compute_capability(trt.ComputeCapability.__members__[name], number)
    _add_profile(builder, compiler, network, settings, profile, log)
    plan = compiler.build_serialized_network(network, settings)
    if plan is None:
        target = f" for {', '.join(capabilities)}" if capabilities else ""
        raise EngineError(f"{builder} cannot compile the model{target}: {_first(log.drain())}")
    return bytes(plan)


@cache
def logger_of(trt: Any) -> Any:
    """The one logger of a package, which keeps what it is told; the packages know only one.

    Its `drain()` gives the errors since the last time.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self._errors.append(message)

        def drain(self) -> list[str]:
            errors, self._errors = self._errors, []
            return errors

    return Log()


def _check_capabilities(builder: str, wanted: Sequence[str]) -> None:
    if not wanted:
        return
    allowed = capabilities_of(builder)
    if not allowed:
        raise EngineError(f"{builder} compiles for the GPU that it runs on, for no other")
    unknown = [name for name in wanted if name not in allowed]
    if unknown:
        raise EngineError(
            f"unknown compute capability {', '.join(unknown)}, allowed are {', '.join(allowed)}"
        )


def _add_profile(
    builder: str, compiler: Any, network: Any, settings: Any, profile: Profile, log: Any
) -> None:
    entry = network.get_input(0)
    _, *sizes = entry.shape
    if network.num_inputs != 1 or network.num_outputs != 1 or min(sizes) < 1:
        raise EngineError(f"{builder}: the model must have one input and output, not {entry.shape}")
    shapes = compiler.create_optimization_profile()
    batches = (profile.smallest, profile.usual, profile.largest)
    shapes.set_shape(entry.name, *((batch, *sizes) for batch in batches))
    if settings.add_optimization_profile(shapes) < 0:
        raise EngineError(f"{builder} refuses {profile}: {_first(log.drain())}")


def _first(reasons: Sequence[str]) -> str:
    """The first reason, without the places in the builder's own source that follow it."""
    if not reasons:
        return "it gives no reason"
    return one_line(RuntimeError(re.sub(r"\W+In \S+ at .*", "", reasons[0], flags=re.DOTALL)))
