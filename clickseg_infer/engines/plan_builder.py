"""Compile a network to a TensorRT plan, with TensorRT or TensorRT-RTX: one code for both.

TensorRT compiles for the GPU that it finds, and crashes where there is none. TensorRT-RTX compiles
without a GPU, for all that it supports or for named compute capabilities, and finishes on the GPU.
Both are told to take the graph's types as they are: precision is the graph's, never the builder's.
"""

import importlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from clickseg_infer.engines.graph_inputs import Shapes, narrowed
from clickseg_infer.engines.nvidia import find_gpu
from clickseg_infer.errors import EngineError, one_line

PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""The builders, and what is imported for each."""

MOST_PATCHES = 256
"""In a batch; more would only take memory."""

_EXTRAS = {"tensorrt": "clickseg[trt]", "tensorrt-rtx": "clickseg[trt-rtx]"}
_CAPABILITY = "SM"  # that is how the enumeration's devices begin


@dataclass(frozen=True)
class Profile:
    """The numbers of patches in a batch that a plan takes.

    Attributes:
        smallest: at least 1.
        usual: what it is made fastest for.
        largest: at most this many, and at most MOST_PATCHES.

    Raises:
        EngineError: they are not whole numbers that rise.
    """

    smallest: int = 1
    usual: int = 1
    largest: int = 4

    def __post_init__(self) -> None:
        batches = (self.smallest, self.usual, self.largest)
        whole = all(type(batch) is int for batch in batches)
        if not whole or not 1 <= batches[0] <= batches[1] <= batches[2] <= MOST_PATCHES:
            told = ", ".join(map(str, batches))
            raise EngineError(f"a profile's batches must rise from 1 to {MOST_PATCHES}, not {told}")


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
        package = importlib.import_module(PACKAGES[name])
        package.__version__, package.Builder  # noqa: B018
    except (ImportError, OSError, AttributeError) as error:
        raise EngineError(f"{name} cannot be imported: {one_line(error)}") from error
    return package


def capabilities_of(builder: str) -> tuple[str, ...]:
    """The compute capabilities that a builder can be told to compile for; none for TensorRT.

    Raises:
        EngineError: as `load_builder`.
    """
    known = getattr(load_builder(builder), "ComputeCapability", None)
    names = known.__members__ if builder == "tensorrt-rtx" and known is not None else ()
    return tuple(name for name in names if name.startswith(_CAPABILITY))


def build_plan(
    builder: str,
    content: bytes,
    profile: Profile,
    capabilities: Sequence[str] = (),
    shapes: Shapes | None = None,
) -> bytes:
    """Compile a serialised ONNX model, of one input whose batch alone is open or of any others.

    Args:
        builder: "tensorrt" or "tensorrt-rtx".
        content: the model.
        profile: the batches that the plan takes.
        capabilities: what TensorRT-RTX compiles for, such as "SM89"; without any, all it supports.
        shapes: each input's, as in `Network.shapes`; None for one input (N, C, z, y, x).

    Raises:
        EngineError: as `load_builder`; an unknown capability; a model that it cannot compile.
    """
    trt = load_builder(builder)
    capabilities = check_capabilities(builder, capabilities)
    log = logger_of(trt)
    log.drain()
    with translated(builder, log):
        compiler = trt.Builder(log)
        strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = compiler.create_network(strongly_typed)
        parser = trt.OnnxParser(network, log)
        if not parser.parse(content):
            errors = [parser.get_error(number) for number in range(parser.num_errors)]
            reasons = [f"{error.node_operator()}: {error.desc()}" for error in errors]
            raise EngineError(
                f"{builder} cannot read the model: {first_of(reasons or log.drain())}"
            )
        takes = _input_shapes(builder, network, shapes)
        network.name = network.get_output(0).name  # plans do not keep the order of the outputs
        settings = compiler.create_builder_config()
        settings.clear_flag(trt.BuilderFlag.TF32)  # whose products are not float32
        if capabilities:
            settings.num_compute_capabilities = len(capabilities)
        for number, name in enumerate(capabilities):
            known = trt.ComputeCapability.__members__[name]
            if not settings.set_compute_capability(known, number):
                raise EngineError(f"{builder} refuses {name}: {first_of(log.drain())}")
        _add_profile(builder, compiler, settings, takes, profile, log)
        plan = compiler.build_serialized_network(network, settings)
    if plan is None:
        target = f" for {', '.join(capabilities)}" if capabilities else ""
        raise EngineError(f"{builder} cannot compile the model{target}: {first_of(log.drain())}")
    return bytes(plan)


@contextmanager
def translated(builder: str, log: Any) -> Iterator[None]:
    """What a package of TensorRT raises, a TypeError without a driver among others, as ours."""
    try:
        yield
    except (TypeError, RuntimeError, ValueError) as error:
        if isinstance(error, EngineError):
            raise
        told = log.drain() or [str(error)]
        raise EngineError(f"{builder} failed: {first_of(told)}") from error


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


def check_capabilities(builder: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted compute capabilities, each once.

    Raises:
        EngineError: one that the builder does not know; as `load_builder`.
    """
    if not wanted:
        return ()
    allowed = capabilities_of(builder)
    if not allowed:
        raise EngineError(f"{builder} compiles for the GPU that it runs on, for no other")
    unknown = [name for name in wanted if name not in allowed]
    if unknown:
        raise EngineError(
            f"unknown compute capability {', '.join(unknown)}, allowed are {', '.join(allowed)}"
        )
    return tuple(dict.fromkeys(wanted))


def _input_shapes(builder: str, network: Any, wanted: Shapes | None) -> Shapes:
    """Each input's shape, -1 where its batch is open."""
    if network.num_outputs < 1 or (wanted is None and network.num_inputs != 1):
        raise EngineError(
            f"{builder}: the model must have one input, or shapes for several, and an output, "
            f"not {network.num_inputs} and {network.num_outputs}"
        )
    entries = [network.get_input(number) for number in range(network.num_inputs)]
    graph = {entry.name: tuple(entry.shape) for entry in entries}
    if wanted is not None:
        return narrowed(graph, wanted)
    (shape,) = graph.values()
    if shape[:1] != (-1,) or len(shape) != 5 or min(shape[1:]) < 1:
        raise EngineError(f"{builder}: the input must be (N, C, z, y, x), not {shape}")
    return graph


def _add_profile(
    builder: str, compiler: Any, settings: Any, takes: Shapes, profile: Profile, log: Any
) -> None:
    shapes = compiler.create_optimization_profile()
    batches = (profile.smallest, profile.usual, profile.largest)
    for name, shape in takes.items():
        is_open = shape[:1] == (-1,)
        sizes = ((number, *shape[1:]) if is_open else shape for number in batches)
        shapes.set_shape(name, *sizes)
    if settings.add_optimization_profile(shapes) < 0:
        raise EngineError(f"{builder} refuses {profile}: {first_of(log.drain())}")


def first_of(reasons: Sequence[str]) -> str:
    """The first reason, without the places in the builder's own source that follow it."""
    if not reasons:
        return "it gives no reason"
    return one_line(RuntimeError(re.sub(r"\W+In \S+ at .*", "", reasons[0], flags=re.DOTALL)))
