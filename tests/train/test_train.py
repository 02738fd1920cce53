import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import clickseg_infer as cs
from clickseg_train.cases import Dataset, read_dataset
from clickseg_train.checkpoint import read_checkpoint, write_checkpoint
from clickseg_train.config import TrainConfig, read_config
from clickseg_train.reports import StepReport, ValidationReport
from clickseg_train.train import LOG, train
from clickseg_train.validate import random_clicks


@pytest.fixture
def dataset(phantoms: Path) -> Dataset:
    return read_dataset(phantoms)


@pytest.fixture
def config(tiny_config: Path) -> TrainConfig:
    return read_config(tiny_config)


def test_a_run_leaves_a_checkpoint_and_a_log(
    dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    reports: list[StepReport] = []
    path = train([dataset], tmp_path / "run", config, report=reports.append)
    assert [report.step for report in reports] == [1, 2, 3, 4]
    lines = (tmp_path / "run" / LOG).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    checkpoint = read_checkpoint(path)
    assert checkpoint.step == 4
    assert checkpoint.config == config
    assert checkpoint.trained_on == (cs.Source("Small", "CC0"),)
    assert sorted(os.listdir(tmp_path / "run")) == ["last.ckpt", LOG]


def test_training_learns(dataset: Dataset, config: TrainConfig, tmp_path: Path) -> None:
    scores: list[float] = []

    def note(report: StepReport) -> None:
        scores.extend(dice for _, _, dice in report.objects)

    pasted = replace(config.sampling, labels=0.0, regions=0.0, pasted=1.0)
    longer = replace(
        config, steps=40, batch=4, checkpoint_every=40, learning_rate=1e-2, sampling=pasted
    )
    train([dataset], tmp_path / "run", longer, report=note)
    assert sum(scores[-80:]) / 80 > 0.15 + sum(scores[:16]) / 16  # it learns within a few steps


def test_a_resumed_run_goes_on_as_an_unbroken_one(
    dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    whole = read_checkpoint(train([dataset], tmp_path / "whole", config))

    class KilledError(Exception):
        pass

    def kill(report: StepReport) -> None:
        if report.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train([dataset], tmp_path / "broken", config, report=kill)
    assert read_checkpoint(tmp_path / "broken" / "last.ckpt").step == 2
    resumed = read_checkpoint(train([dataset], tmp_path / "broken", config, resume=True))
    lines = (tmp_path / "broken" / LOG).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert resumed.step == whole.step
    for state in ("network", "average"):
        ours, theirs = getattr(resumed, state), getattr(whole, state)
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), key


def test_kill_9_never_costs_a_checkpoint(phantoms: Path, tiny_config: Path, tmp_path: Path) -> None:
    """Kill at several moments: the checkpoint that remains always reads, and the run goes on."""
    run = tmp_path / "run"
    settings = tmp_path / "long.toml"
    text = tiny_config.read_text().replace("steps = 4", "steps = 4000")
    settings.write_text(text.replace("checkpoint_every = 2", "checkpoint_every = 1"))
    command = [sys.executable, "-c", "from clickseg_cli.main import main; main()", "train"]
    command += [str(phantoms), "--out", str(run), "--config", str(settings)]
    last = 0
    for attempt in range(3):
        resume = ["--resume"] if attempt else []
        process = subprocess.Popen([*command, *resume], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            step = read_checkpoint(run / "last.ckpt").step if (run / "last.ckpt").exists() else 0
            if step > last:
                break
            time.sleep(0.05)
        time.sleep(0.07 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        step = read_checkpoint(run / "last.ckpt").step
        assert step > last
        last = step


def test_folders_are_not_mixed_up(dataset: Dataset, config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(cs.CheckpointError, match="no checkpoint to resume"):
        train([dataset], tmp_path / "run", config, resume=True)
    train([dataset], tmp_path / "run", replace(config, steps=2))
    with pytest.raises(cs.CheckpointError, match="at step 2 of 1"):
        train([dataset], tmp_path / "run", replace(config, steps=1), resume=True)
    with pytest.raises(cs.CheckpointError, match="exists; resume"):
        train([dataset], tmp_path / "run", config)
    with pytest.raises(cs.CheckpointError, match="another configuration"):
        train([dataset], tmp_path / "run", replace(config, batch=3), resume=True)
    other = replace(config, model=replace(config.model, click_radius=5))
    with pytest.raises(cs.CheckpointError, match="another configuration"):
        train([dataset], tmp_path / "run", other, resume=True)
    with pytest.raises(cs.FileError, match="cannot be made"):
        train([dataset], tmp_path / "no" / "run", config)
    with pytest.raises(cs.DatasetError, match="no dataset has a case"):
        train([replace(dataset, train=())], tmp_path / "other", config)


def test_a_run_that_diverges_stops_and_keeps_its_checkpoint(
    dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    path = train([dataset], tmp_path / "run", replace(config, steps=1))
    checkpoint = read_checkpoint(path)
    poison = {k: v * float("nan") if v.ndim else v for k, v in checkpoint.network.items()}
    write_checkpoint(path, replace(checkpoint, network=poison))
    with pytest.raises(cs.TrainingError, match="the loss became nan at step 2"):
        train([dataset], tmp_path / "run", config, resume=True)
    assert read_checkpoint(path).step == 1
    assert all(v.isfinite().all() for v in read_checkpoint(path).average.values())


def test_a_killed_write_leaves_nothing_behind(
    dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    train([dataset], tmp_path / "run", replace(config, steps=1))
    (tmp_path / "run" / ".last.ckpt.half").touch()
    train([dataset], tmp_path / "run", config, resume=True)
    assert sorted(os.listdir(tmp_path / "run")) == ["last.ckpt", LOG]


def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(cs.FileError, match="nowhere"):
        read_checkpoint(tmp_path / "nowhere.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(cs.CheckpointError, match="not a checkpoint, or damaged"):
        read_checkpoint(tmp_path / "text.ckpt")
    torch.save({"schema": "another"}, tmp_path / "other.ckpt")
    with pytest.raises(cs.CheckpointError, match="not a checkpoint of clickseg"):
        read_checkpoint(tmp_path / "other.ckpt")
    torch.save({"schema": "clickseg.checkpoint/1"}, tmp_path / "hollow.ckpt")
    with pytest.raises(cs.CheckpointError, match=r"hollow\.ckpt.*incomplete"):
        read_checkpoint(tmp_path / "hollow.ckpt")


@pytest.mark.parametrize("by", ["clicks", "sliding_window"])
def test_validation(by: str, dataset: Dataset, config: TrainConfig, tmp_path: Path) -> None:
    one = replace(dataset, train=dataset.train[:1], val=dataset.train[2:])
    coarse = replace(
        config.model, spacing_mm=(6.0, 6.0, 6.0), overview_spacing_mm=(12.0, 12.0, 12.0)
    )
    settings = replace(
        config, steps=2, validate_every=2, validate_by=by, validate_clicks=2, model=coarse
    )
    reports: list = []
    train([one], tmp_path / "run", settings, report=reports.append)
    validation = reports[-1]
    assert isinstance(validation, ValidationReport)
    assert validation.step == 2
    assert len(validation.mean_dice) == (2 if by == "clicks" else 1)
    assert all(0 <= value <= 1 for value in validation.mean_dice)


def test_random_clicks_lie_on_the_object() -> None:
    import numpy as np

    truth = np.zeros((9, 9, 9), bool)
    truth[2:5, 3:6, 4:7] = True
    clicks = random_clicks(truth, 5, 0)
    assert len(set(clicks)) == 5
    assert all(truth[click.zyx] for click in clicks)
    assert clicks == random_clicks(truth, 5, 0)
    assert len(random_clicks(truth, 100, 0)) == 27
