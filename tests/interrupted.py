"""A training run that is stopped and resumed, beside one that is not."""

from pathlib import Path

import pytest
import torch

from clickseg_train.cases import Dataset
from clickseg_train.checkpoint import Checkpoint, read_checkpoint
from clickseg_train.config import TrainConfig
from clickseg_train.reports import StepReport
from clickseg_train.train import train


class _StoppedError(Exception):
    pass


def train_and_stop(dataset: Dataset, out: Path, config: TrainConfig, step: int) -> Checkpoint:
    """Stop a run right after `step`; returns its last checkpoint."""

    def stop(report: StepReport) -> None:
        if report.step == step:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        train([dataset], out, config, report=stop)
    return read_checkpoint(out / "last.ckpt")


def assert_same_weights(ours: Checkpoint, theirs: Checkpoint) -> None:
    """Bit for bit, those that are trained and their average."""
    for state in ("network", "average"):
        our_state, their_state = getattr(ours, state), getattr(theirs, state)
        assert our_state.keys() == their_state.keys()
        for key in our_state:
            assert torch.equal(our_state[key], their_state[key]), key
