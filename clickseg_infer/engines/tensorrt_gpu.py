"""TensorRT and TensorRT-RTX plans on an NVIDIA GPU."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.engines import Network
from clickseg_infer.engines.cuda_device import Device
from clickseg_infer.engines.graph_inputs import checked, only_input
from clickseg_infer.engines.nvidia import find_gpu
from clickseg_infer.engines.plan_builder import first_of, load_builder, logger_of, translated
from clickseg_infer.engines.plans import PlanRecord, new_plan, stored_plans
from clickseg_infer.errors import EngineError

_log = logging.getLogger("clickseg")


def open_network(name: str, network: Network, precision: str, *, asked: bool) -> "PlanEngine":
    """Open a network's plan; only who asked for TensorRT by name waits for a first one.

    A plan that is there but damaged, or made for elsewhere, is compiled anew, with lines of log
    that say so; the new one goes into the cache, and the user's file stays as it is.

    Raises:
        EngineError: no GPU, no package, not this precision, no plan, or none that opens.
    """
    has = precisions(name, network)
    if precision not in ("auto", *has):
        raise EngineError(f"{name} computes this model in {', '.join(has)}, not {precision}")
    device = Device()
    try:
        return _opened(name, network, device, asked)
    except BaseException:
        device.close()
        raise


def _opened(name: str, network: Network, device: Device, asked: bool) -> "PlanEngine":
    gpu, found = find_gpu(), False
    for stored in stored_plans(name, network, gpu):
        found, flaw = True, stored.flaw
        if not flaw:
            try:
                return PlanEngine(stored.plan, stored.record, device)
            except EngineError as error:
                flaw = str(error)
        _log.warning("%s cannot be used: %s", stored.where, flaw)
    if not (found or asked):
        raise EngineError(
            f"{name} has no plan of this model; clickseg export MODEL.onnx --trt compiles one"
        )
    _log.warning("compiling a plan of the model by %s, to be kept in the cache", name)
    return PlanEngine(*new_plan(name, network, gpu), device)


def precisions(name: str, network: Network) -> tuple[str, ...]:
    """The graph's own.

    Raises:
        EngineError: the package cannot be imported.
    """
    load_builder(name)
    return (network.precision,)


class PlanEngine:
    """One plan with its context, on a device whose memory is kept."""

    def __init__(self, plan: bytes, record: PlanRecord, device: Device) -> None:
        trt = load_builder(record.builder)
        self.name, self.precision = record.builder, record.precision
        self._largest = record.profile.largest
        log = logger_of(trt)
        log.drain()
        with translated(self.name, log):
            self._runtime: Any = trt.Runtime(log)
            self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
            self._context: Any = self._engine and self._engine.create_execution_context()
        if not self._context:
            raise EngineError(f"{self.name} refuses it: {first_of(log.drain())}")
        names = [self._engine.get_tensor_name(n) for n in range(self._engine.num_io_tensors)]
        entry = trt.TensorIOMode.INPUT
        entries = [name for name in names if self._engine.get_tensor_mode(name) == entry]
        self._exits = [name for name in names if name not in entries]
        self._takes = record.shapes or {
            name: tuple(self._engine.get_tensor_shape(name)) for name in entries
        }
        named = self._engine.name  # by `build_plan`, after the first output
        self._first = named if named in self._exits else self._exits[0]
        self._device: Device | None = device

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Network input (N, C, z, y, x) to logits (N, 1, z, y, x); see `Engine.run`."""
        device = self._held()
        entry = only_input(self._takes)
        logits = np.empty((len(batch), 1, *batch.shape[2:]), np.float32)
        for begin in range(0, len(batch), self._largest):
            part = slice(begin, begin + self._largest)
            inputs = {entry: np.ascontiguousarray(batch[part], np.float32)}
            address, _ = self._queue(device, inputs)[self._first]
            device.copy_out(logits[part], address)
            device.wait()
        return logits

    def run_graph(
        self, inputs: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Every output by its name, for a batch that the plan takes; see `Engine.run_graph`."""
        device = self._held()
        inputs = checked(self._takes, inputs)
        for name, shape in self._takes.items():
            if shape[:1] == (-1,) and len(inputs[name]) > self._largest:
                raise EngineError(
                    f"{self.name}: the plan takes at most {self._largest} in a batch, "
                    f"not {len(inputs[name])}"
                )
        answers = {}
        for name, (address, shape) in self._queue(device, inputs).items():
            answers[name] = np.empty(shape, np.float32)
            device.copy_out(answers[name], address)
        device.wait()
        return answers

    def close(self) -> None:
        """Let go of the plan and of the device's memory."""
        device, self._device = self._device, None
        self._context = self._engine = self._runtime = None
        if device is not None:
            device.close()

    def _held(self) -> Device:
        if self._device is None:
            raise EngineError(f"{self.name}: the engine is closed")
        return self._device

    def _queue(
        self, device: Device, inputs: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Queue one run; each output's address on the device, and its shape.

        The inputs must live until the device has waited.
        """
        context, exits = self._context, {}
        queued = all(context.set_input_shape(name, array.shape) for name, array in inputs.items())
        if queued:
            for name, array in inputs.items():
                address = device.memory(name, array.nbytes)
                device.copy_in(address, array)
                queued = queued and context.set_tensor_address(name, address)
            for name in self._exits:
                shape = tuple(context.get_tensor_shape(name))
                address = device.memory(name, math.prod(shape) * np.float32().itemsize)
                queued = queued and context.set_tensor_address(name, address)
                exits[name] = address, shape
        if not (queued and context.execute_async_v3(device.stream)):
            told = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise EngineError(f"{self.name} failed: the plan does not take {told}")
        return exits
