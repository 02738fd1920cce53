"""TensorRT plans on disk: `MODEL.plan` beside `MODEL.onnx` with its record, or in the user's cache.

A plan runs only where it was made for, so each is told by a record: what it was compiled from, by
which builder, in which precision, for which batches and devices. A plan whose record does not fit,
or that is not the file that its record tells of, is never run.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.engines import Network
from clickseg_infer.engines.compiled_cache import has_entry, read_entry, write_entry
from clickseg_infer.engines.nvidia import Gpu
from clickseg_infer.engines.plan_builder import Profile, build_plan, load_builder
from clickseg_infer.errors import EngineError

_PORTABLE_FROM = 80  # without capabilities, TensorRT-RTX compiles for Ampere and later


@dataclass(frozen=True)
class PlanRecord:
    """What a plan was compiled from, and for what; the JSON beside it.

    Attributes:
        builder: "tensorrt" or "tensorrt-rtx".
        version: the builder's.
        onnx_sha256: of the model file, in hexadecimal.
        precision: of the graph: "float32", "float16" or "int8".
        profile: the batches that it takes.
        compute_capabilities: those that TensorRT-RTX was told; none for all from SM80 on.
        device: the GPU's name that TensorRT compiled for; empty for TensorRT-RTX.
        plan_sha256: of the plan, in hexadecimal; empty until it is compiled.
        spec: the model's spec as JSON has it, where it was exported.
        shapes: the network's, of each input; None, and not in the JSON, where it has none.
    """

    builder: str
    version: str
    onnx_sha256: str
    precision: str
    profile: Profile
    compute_capabilities: tuple[str, ...] = ()
    device: str = ""
    plan_sha256: str = ""
    spec: dict[str, Any] | None = None
    shapes: dict[str, tuple[int, ...]] | None = None

    def to_json(self) -> str:
        """The record as indented JSON."""
        values = asdict(self)
        if self.shapes is None:
            del values["shapes"]
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "PlanRecord":
        """Read what `to_json` wrote.

        Raises:
            EngineError: not such a record.
        """
        try:
            values = json.loads(text)
            values["profile"] = Profile(**values["profile"])
            values["compute_capabilities"] = tuple(values["compute_capabilities"])
            if "shapes" in values:
                shapes = dict(values["shapes"])
                values["shapes"] = {name: tuple(shape) for name, shape in shapes.items()}
            return cls(**values)
        except (ValueError, KeyError, TypeError, EngineError) as error:
            raise EngineError(f"its record cannot be read: {error!r}") from error


def plan_path(model: Path) -> Path:
    """Where a model's plan lies."""
    return model.with_suffix(".plan")


def record_path(plan: Path) -> Path:
    """Where a plan's record lies."""
    return plan.with_name(plan.name + ".json")


def planned(
    builder: str,
    network: Network,
    gpu: Gpu | None,
    profile: Profile | None = None,
    capabilities: tuple[str, ...] = (),
) -> PlanRecord:
    """The record of a plan that is still to be compiled; `gpu` is the one that is here.

    Raises:
        EngineError: the builder cannot be used here.
    """
    return PlanRecord(
        builder,
        str(load_builder(builder).__version__),
        network.sha256,
        network.precision,
        profile or Profile(),
        capabilities,
        gpu.name if gpu is not None and builder == "tensorrt" else "",
        shapes=None if network.shapes is None else dict(network.shapes),
    )


def compiled(record: PlanRecord, network: Network) -> tuple[bytes, PlanRecord]:
    """Compile what a record tells of; the plan, and the record with its hash.

    Raises:
        EngineError: it cannot be compiled.
    """
    plan = build_plan(
        record.builder,
        network.content,
        record.profile,
        record.compute_capabilities,
        record.shapes,
    )
    return plan, replace(record, plan_sha256=hashlib.sha256(plan).hexdigest())


def write_plan(path: Path, plan: bytes, record: PlanRecord) -> None:
    """Write a plan and, last, its record: until then the plan is not taken for one.

    Raises:
        FileError: one of them cannot be written.
    """
    write_whole(path, plan)
    write_whole(record_path(path), record.to_json().encode())


def read_plan(path: Path) -> tuple[bytes, PlanRecord]:
    """A plan and its record.

    Raises:
        EngineError: one is missing, or the plan is not the one that its record tells of.
    """
    try:
        record = PlanRecord.from_json(record_path(path).read_text())
        plan = path.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"{path}: it or its record cannot be read: {error}") from error
    except EngineError as error:
        raise EngineError(f"{path}: {error}") from error
    if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
        raise EngineError(f"{path}: damaged: its content is not what its record tells of")
    return plan, record


def unfit(record: PlanRecord, wanted: PlanRecord, gpu: Gpu) -> str:
    """Why a plan does not serve here, where `wanted` would be compiled; empty if it does."""
    if record.onnx_sha256 != wanted.onnx_sha256:
        return "it was compiled from another model"
    if record.shapes != wanted.shapes:
        return "it was compiled for other shapes"
    if record.version != wanted.version:
        return f"it was compiled by version {record.version}, and here is {wanted.version}"
    if record.precision != wanted.precision:
        return f"it is said to be {record.precision}, but its model is {wanted.precision}"
    if record.device != wanted.device:
        return f"it was compiled for {record.device}, and here is {wanted.device}"
    named = record.compute_capabilities
    if named and gpu.compute_capability not in named:
        return f"it was compiled for {', '.join(named)}, and here is {gpu.compute_capability}"
    if wanted.compute_capabilities and not named:
        return f"it was compiled for SM{_PORTABLE_FROM} and later, and here is an older GPU"
    return ""


@dataclass(frozen=True, eq=False)
class StoredPlan:
    """A plan that was found for a network: beside its model, or in the cache.

    Attributes:
        where: it lies.
        plan: its bytes.
        record: what it is.
        flaw: why it cannot be used here; empty if it can, as far as its record says.
    """

    where: str
    plan: bytes
    record: PlanRecord
    flaw: str = ""


def stored_plans(builder: str, network: Network, gpu: Gpu) -> Iterator[StoredPlan]:
    """The plans that a builder made of a network, the one beside the model first.

    A plan of the other builder is none of this one's.

    Args:
        builder: "tensorrt" or "tensorrt-rtx".
        network: what the plan runs.
        gpu: the one that is here.

    Raises:
        EngineError: the builder cannot be used here.
    """
    wanted = _wanted(builder, network, gpu)
    beside = plan_path(network.path) if network.path is not None else None
    if beside is not None and beside.exists():
        try:
            plan, record = read_plan(beside)
        except EngineError as error:
            yield StoredPlan(str(beside), b"", wanted, str(error).removeprefix(f"{beside}: "))
        else:
            if record.builder == builder:
                yield StoredPlan(str(beside), plan, record, unfit(record, wanted, gpu))
    about = _about(wanted)
    if has_entry(about):
        kept = read_entry(about)
        flaw = "damaged" if kept is None else ""
        yield StoredPlan("the plan in the cache", bytes(kept or b""), wanted, flaw)


def new_plan(builder: str, network: Network, gpu: Gpu) -> tuple[bytes, PlanRecord]:
    """Compile a plan for a network and a GPU, and keep it in the cache.

    Raises:
        EngineError: it cannot be compiled.
    """
    wanted = _wanted(builder, network, gpu)
    plan, record = compiled(wanted, network)
    write_entry(_about(wanted), lambda: plan)
    return plan, record


def _wanted(builder: str, network: Network, gpu: Gpu) -> PlanRecord:
    """The record of the plan that would be compiled for this network and GPU."""
    portable = int(gpu.compute_capability.removeprefix("SM")) >= _PORTABLE_FROM
    capabilities = () if portable or builder == "tensorrt" else (gpu.compute_capability,)
    return planned(builder, network, gpu, capabilities=capabilities)


def _about(record: PlanRecord) -> dict[str, object]:
    """The record as the cache keeps it, in the cache's words."""
    about: dict[str, object] = {
        "engine": record.builder,
        "version": record.version,
        "model": record.onnx_sha256,
        "precision": record.precision,
        "profile": list(asdict(record.profile).values()),
        "device": record.device or list(record.compute_capabilities) or "portable",
    }
    if record.shapes is not None:
        about["shapes"] = record.shapes
    return about
