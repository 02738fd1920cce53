"""Checkpoints: written whole or not at all, and enough to go on exactly."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.errors import CheckpointError, ConfigError, FileError
from clickseg_infer.model_spec import Source
from clickseg_train.config import TrainConfig, config_of, values_of

SCHEMA = "clickseg.checkpoint/1"


@dataclass(frozen=True)
class Checkpoint:
    """A training run at one step.

    Attributes:
        config: of the run.
        step: how many optimiser steps were taken.
        network: the state of the network that is trained.
        average: the state of its moving average, which is what is exported.
        optimizer: the state of the optimiser.
        scaler: the state of the gradient scaler; empty unless computing in float16.
        trained_on: the datasets and their licences, those of weights begun with among them.
        datasets: names of what this run learns from, in order; empty where that is not known.
    """

    config: TrainConfig
    step: int
    network: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    trained_on: tuple[Source, ...] = ()
    datasets: tuple[str, ...] = ()


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint through a temporary file and one rename.

    Raises:
        FileError: it cannot be written; an older checkpoint of that name stays.
    """
    content = io.BytesIO()
    values = {
        **vars(checkpoint),
        "schema": SCHEMA,
        "config": values_of(checkpoint.config),
        "trained_on": [vars(source) for source in checkpoint.trained_on],
    }
    torch.save(values, content)
    write_whole(path, content.getvalue())


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        FileError: missing or unreadable.
        CheckpointError: not a clickseg checkpoint, or damaged.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # torch raises whatever unpickling meets in a damaged file
        raise CheckpointError(f"{path}: not a checkpoint, or damaged") from error
    if not isinstance(values, dict) or values.pop("schema", None) != SCHEMA:
        raise CheckpointError(f"{path}: not a checkpoint of clickseg ({SCHEMA})")
    try:
        values["config"] = config_of(values["config"])
        values["trained_on"] = tuple(Source(**source) for source in values["trained_on"])
        return Checkpoint(**values)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: an incomplete or foreign checkpoint: {error}") from error


def load_state(module: nn.Module | torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put a checkpoint's state into a network or an optimiser.

    Raises:
        CheckpointError: the state belongs to another network.
    """
    try:
        module.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"the checkpoint is of another network: {reason}") from error
