"""A GPU that is not there: CUDA's memory, and a TensorRT that runs its plans on the CPU.

Its device memory is the host's, so that addresses and copies are real; its plans are a name and a
number. What it shows is that the right calls are made in the right order, not what a GPU computes.
"""

import ctypes
import math
import types
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from clickseg_infer import engines
from clickseg_infer.engines import plan_builder, plans, tensorrt_gpu
from clickseg_infer.engines.nvidia import Gpu

GPU = Gpu("NVIDIA Test 9000", "SM89")
Arrays = np.ndarray | tuple[np.ndarray, ...]


class Cuda(types.ModuleType):
    """cuda.bindings.runtime; every call gives an error code and what it returns."""

    class cudaMemcpyKind:  # noqa: N801
        cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = "in", "out"  # noqa: N815

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.buffers: dict[int, np.ndarray] = {}
        self.allocated, self.streams, self.fail = 0, 0, ""
        self.refused = ""  # the call of a plan's context that says no

    def _code(self, name: str) -> int:
        return 2 if name == self.fail else 0

    def cudaStreamCreate(self) -> tuple:  # noqa: N802
        self.streams += 1
        return self._code("stream"), 77

    def cudaStreamDestroy(self, stream: int) -> tuple:  # noqa: N802
        assert stream == 77
        self.streams -= 1
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple:  # noqa: N802
        assert stream == 77
        return (self._code("wait"),)

    def cudaMalloc(self, size: int) -> tuple:  # noqa: N802
        buffer = np.zeros(size, np.uint8)
        self.buffers[buffer.ctypes.data] = buffer
        self.allocated += 1
        return self._code("malloc"), buffer.ctypes.data

    def cudaFree(self, address: int) -> tuple:  # noqa: N802
        del self.buffers[address]
        return (self._code("free"),)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: str, stream: int) -> tuple:  # noqa: N802
        device = to if kind == "in" else source
        assert size <= self.buffers[device].nbytes
        assert stream == 77
        ctypes.memmove(to, source, size)
        return (self._code("copy"),)


class TensorRt(types.ModuleType):
    """The part of tensorrt that runs plans; a plan b"plan LARGEST" computes `function`.

    `function` takes the inputs in order and gives the output, or a tuple of outputs in order; the
    shapes of `inputs` have -1 where the batch is open. A plan lists its outputs the last one first.
    """

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal"

        def __init__(self) -> None: ...

    class TensorIOMode:
        INPUT, OUTPUT = "in", "out"

    def __init__(
        self, cuda: Cuda, function: Callable[..., Arrays], version: str = "10.13.1"
    ) -> None:
        super().__init__("tensorrt")
        self.cuda, self.function, self.__version__ = cuda, function, version
        self.network_name = "Unnamed Network 0"
        self.inputs: dict[str, tuple[int, ...]] = {"input": (-1, 3, 4, 4, 4)}
        self.outputs: tuple[str, ...] = ("logits",)
        self.open_plans: weakref.WeakSet[_Plan] = weakref.WeakSet()

    def Runtime(self, log: ILogger) -> "_Runtime":  # noqa: N802
        return _Runtime(self, log)


class _Runtime:
    def __init__(self, trt: TensorRt, log: TensorRt.ILogger) -> None:
        self.trt, self.log = trt, log

    def deserialize_cuda_engine(self, plan: bytes) -> "_Plan | None":
        if not plan.startswith(b"plan"):
            self.log.log("error", "bad magic")  # type: ignore[attr-defined]
            return None
        return _Plan(self.trt, int(plan.split()[1]))


class _Plan:
    def __init__(self, trt: TensorRt, largest: int) -> None:
        self.trt, self.largest, self.name = trt, largest, trt.network_name
        trt.open_plans.add(self)
        self.names = (*trt.inputs, *reversed(trt.outputs))
        self.num_io_tensors = len(self.names)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def get_tensor_name(self, number: int) -> str:
        return self.names[number]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.trt.inputs else "out"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.trt.inputs:
            return self.trt.inputs[name]
        return self._answers({n: np.zeros(shape) for n, shape in self.shapes.items()})[name].shape

    def create_execution_context(self) -> "_Plan":
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        takes = self.trt.inputs[name]
        self.shapes[name] = shape
        batches = shape[:1] if takes[:1] == (-1,) else ()
        return max(batches, default=0) <= self.largest and self.trt.cuda.refused != "shape"

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return self.trt.cuda.refused != name

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        assert set(self.addresses) == set(self.names)
        if self.trt.cuda.refused == "execute":
            return False
        memory = {
            name: self.trt.cuda.buffers[address].view(np.float32)
            for name, address in self.addresses.items()
        }
        inputs = {
            name: memory[name][: math.prod(shape)].reshape(shape)
            for name, shape in self.shapes.items()
        }
        for name, answer in self._answers(inputs).items():
            memory[name][: answer.size] = answer.ravel()
        return True

    def _answers(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self.trt.function(*(inputs[name] for name in self.trt.inputs))
        answers = found if isinstance(found, tuple) else (found,)
        return dict(zip(self.trt.outputs, answers, strict=True))


def put_gpu(monkeypatch: pytest.MonkeyPatch, gpu: Gpu = GPU) -> None:
    """Let every module that asks find this GPU."""
    for module in (engines, plan_builder, tensorrt_gpu):
        monkeypatch.setattr(module, "find_gpu", lambda: gpu)


def put_builder(
    monkeypatch: pytest.MonkeyPatch, trt: TensorRt, plan: Callable[[], bytes] = lambda: b"plan 4"
) -> list[str]:
    """Let this package be both builders; the list grows by the builder's name when one compiles."""
    counted: list[str] = []

    def build_plan(builder: str, *_: object) -> bytes:
        counted.append(builder)
        return plan()

    monkeypatch.setattr(plans, "build_plan", build_plan)
    for module in (plans, tensorrt_gpu):
        monkeypatch.setattr(module, "load_builder", lambda _: trt)
    return counted
