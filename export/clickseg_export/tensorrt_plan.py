"""An exported model gets a TensorRT plan beside it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from clickseg_infer.atomic_write import check_writable
from clickseg_infer.engines.nvidia import Gpu, find_gpu
from clickseg_infer.engines.plan_builder import Profile, check_capabilities, choose_builder
from clickseg_infer.engines.plans import (
    PlanRecord,
    compiled,
    plan_path,
    planned,
    record_path,
    write_plan,
)
from clickseg_infer.errors import EngineError
from clickseg_infer.model import read_network


@dataclass(frozen=True)
class PlanOptions:
    """What a plan is compiled for.

    Attributes:
        builder: "tensorrt", "tensorrt-rtx", or "auto"; see `choose_builder`.
        batch: the most patches that it takes at once.
        capabilities: compute capabilities such as "SM89", which only TensorRT-RTX can be told.
    """

    builder: str = "auto"
    batch: int = 4
    capabilities: tuple[str, ...] = ()


def check_plan(model: Path, options: PlanOptions) -> PlanOptions:
    """Fail before the work rather than after it; the options with the builder that it will be.

    Raises:
        FileError: the plan cannot be written.
        EngineError: no builder can be used here, or not with these options.
    """
    path = plan_path(model)
    for target in (path, record_path(path)):
        check_writable(target, model)
    named = options.capabilities and options.builder == "auto"
    builder = choose_builder("tensorrt-rtx" if named else options.builder)
    Profile(largest=options.batch)
    capabilities = check_capabilities(builder, options.capabilities)
    return PlanOptions(builder, options.batch, capabilities)


def export_plan(model: Path, options: PlanOptions = PlanOptions()) -> tuple[Path, PlanRecord]:
    """Compile MODEL.onnx to MODEL.plan, with its record in MODEL.plan.json.

    Returns:
        The plan's path and its record.

    Raises:
        FileError, ModelError: the model cannot be read, or the plan cannot be written.
        EngineError: no builder can be used here, or it cannot compile the model.
    """
    options = check_plan(model, options)
    spec, network = read_network(model)
    profile = Profile(largest=options.batch)
    wanted = planned(options.builder, network, _gpu(), profile, options.capabilities)
    plan, record = compiled(replace(wanted, spec=json.loads(spec.to_json())), network)
    path = plan_path(model)
    write_plan(path, plan, record)
    return path, record


def _gpu() -> Gpu | None:
    try:
        return find_gpu()
    except EngineError:
        return None
