"""An exported model gets a TensorRT plan beside it."""

import json
from dataclasses import replace
from pathlib import Path

from clickseg_infer.atomic_write import check_writable
from clickseg_infer.engines.nvidia import Gpu, find_gpu
from clickseg_infer.engines.plan_builder import Profile, choose_builder
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


def export_plan(
    model: Path, *, builder: str = "auto", batch: int = 4, capabilities: tuple[str, ...] = ()
) -> tuple[Path, PlanRecord]:
    """Compile MODEL.onnx to MODEL.plan, with its record in MODEL.plan.json.

    Args:
        model: an exported model.
        builder: "tensorrt", "tensorrt-rtx", or "auto"; see `choose_builder`.
        batch: the most patches that the plan takes at once.
        capabilities: compute capabilities such as "SM89", which only TensorRT-RTX can be told.

    Returns:
        The plan's path and its record.

    Raises:
        FileError, ModelError: the model cannot be read, or the plan cannot be written.
        EngineError: no builder can be used here, or it cannot compile the model.
    """
    path = plan_path(model)
    for target in (path, record_path(path)):
        check_writable(target, model)
    spec, network = read_network(model)
    chosen = choose_builder("tensorrt-rtx" if capabilities and builder == "auto" else builder)
    profile = Profile(largest=batch)
    wanted = planned(chosen, network, _gpu(), profile, capabilities)
    plan, record = compiled(replace(wanted, spec=json.loads(spec.to_json())), network)
    write_plan(path, plan, record)
    return path, record


def _gpu() -> Gpu | None:
    try:
        return find_gpu()
    except EngineError:
        return None
