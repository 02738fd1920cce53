import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clickseg_export.parity import example_batch
from interrupted import assert_same_weights, train_and_stop
from stand_ins import make_spec

import clickseg_infer as cs
from clickseg_train.case_cache import CaseCache
from clickseg_train.cases import Dataset, load_case, read_dataset
from clickseg_train.checkpoint import read_checkpoint, write_checkpoint
from clickseg_train.config import TrainConfig, read_config
from clickseg_train.drawing import Draw
from clickseg_train.networks import build_network
from clickseg_train.reports import StepReport, ValidationReport
from clickseg_train.tensorboard import FOLDER, picture
from clickseg_train.train import CACHE, LOG, train
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
    assert sorted(os.listdir(tmp_path / "run")) == [CACHE, "last.ckpt", LOG, FOLDER]


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
    assert train_and_stop(dataset, tmp_path / "broken", config, step=3).step == 2
    resumed = read_checkpoint(train([dataset], tmp_path / "broken", config, resume=True))
    lines = (tmp_path / "broken" / LOG).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert resumed.step == whole.step
    assert_same_weights(resumed, whole)


def test_kill_9_at_any_step_changes_nothing(
    phantoms: Path, dataset: Dataset, tiny_config: Path, tmp_path: Path
) -> None:
    """Killed twice at random steps and resumed, a run ends with the numbers of an unbroken one."""
    settings = tmp_path / "longer.toml"
    settings.write_text(tiny_config.read_text().replace("steps = 4", "steps = 14"))
    whole = read_checkpoint(train([dataset], tmp_path / "whole", read_config(settings)))
    run = tmp_path / "broken"
    command = [sys.executable, "-m", "clickseg_train", str(phantoms), "--out", str(run)]
    command += ["--config", str(settings), "--workers", "1"]
    rng = np.random.default_rng()
    for attempt, stop in enumerate((rng.integers(1, 7), rng.integers(8, 14))):
        resume = ["--resume"] if attempt else []
        process = subprocess.Popen([*command, *resume], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and process.poll() is None:
            if len(_log(run)) >= stop:
                break
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert 0 <= read_checkpoint(run / "last.ckpt").step < 14
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    resumed = read_checkpoint(run / "last.ckpt")
    assert resumed.step == whole.step == 14
    assert_same_weights(resumed, whole)
    assert _losses(run) == _losses(tmp_path / "whole")


def _log(run: Path) -> list[str]:
    return (run / LOG).read_text().splitlines() if (run / LOG).exists() else []


def _losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in _log(run)]


def test_two_processes_are_one_with_the_doubled_batch(
    phantoms: Path, dataset: Dataset, tiny_config: Path, tmp_path: Path
) -> None:
    """Gradients and running statistics of the first step, and the objects of every step."""
    settings = tmp_path / "two.toml"
    settings.write_text(tiny_config.read_text().replace("steps = 4", "steps = 1"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "clickseg_train", str(phantoms), "--device", "cpu"]
    command += ["--out", str(tmp_path / "two"), "--config", str(settings)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.count("1 steps") == 1  # only the first process speaks
    two = read_checkpoint(tmp_path / "two" / "last.ckpt")
    one_config = replace(read_config(settings), batch=4)
    one = read_checkpoint(train([dataset], tmp_path / "one", one_config, device="cpu"))
    ours, theirs = (json.loads(_log(tmp_path / run)[0]) for run in ("two", "one"))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert [(kind, clicks) for kind, clicks, _ in ours["objects"]] == [
        (kind, clicks) for kind, clicks, _ in theirs["objects"]
    ]
    for key, value in one.network.items():
        if "running" in key or "tracked" in key:
            assert torch.allclose(two.network[key], value, rtol=1e-4, atol=1e-6), key
    # What the optimiser keeps of the first step is a tenth of its gradient.
    for number, state in one.optimizer["state"].items():
        theirs_kept = state["exp_avg"]
        ours_kept = two.optimizer["state"][number]["exp_avg"]
        scale = theirs_kept.abs().max() + 1e-7
        assert (ours_kept - theirs_kept).abs().max() < 1e-2 * scale, number


def test_two_processes_begin_with_the_same_network(
    phantoms: Path, dataset: Dataset, tiny_config: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    """Each would measure what its own objects are normalised by; the first one's counts."""
    from clickseg_export.onnx_weights import read_initial

    settings = tmp_path / "two.toml"
    settings.write_text(tiny_config.read_text().replace("steps = 4", "steps = 1\nsettle = 1.0"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "clickseg_train", str(phantoms), "--device", "cpu", "--init", str(tiny_onnx)]
    command += ["--out", str(tmp_path / "two"), "--config", str(settings)]
    subprocess.run(command, check=True, capture_output=True)
    one = replace(read_config(settings), batch=4)
    initial, _ = read_initial(tiny_onnx, one)
    train([dataset], tmp_path / "one", one, initial=initial, device="cpu")
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-3)


def test_a_run_can_begin_with_a_models_weights(
    dataset: Dataset, config: TrainConfig, tiny_checkpoint: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    from clickseg_export.onnx_weights import read_initial

    still = replace(config, steps=1, learning_rate=1e-9, weight_decay=0.0, ema=0.0)
    spec = config.model.spec()
    batch = torch.from_numpy(example_batch(spec))
    for source in (tiny_checkpoint, tiny_onnx):
        initial, told = read_initial(source, config)
        assert told.trained_on == (cs.Source("Small", "CC0"),)
        out = tmp_path / source.suffix
        path = train([dataset], out, still, initial=initial, sources=told.trained_on)
        begun = build_network(config.network, len(spec.channels)).eval()
        begun.load_state_dict(read_checkpoint(path).network)
        was = build_network(config.network, len(spec.channels)).eval()
        was.load_state_dict(read_checkpoint(tiny_checkpoint).average)
        # The statistics have moved by one training step, so the outputs only resemble each other.
        with torch.no_grad():
            ours, theirs = begun(batch).ravel(), was(batch).ravel()
        assert torch.corrcoef(torch.stack([ours, theirs]))[0, 1] > 0.98, source
    with pytest.raises(cs.CheckpointError, match="does not fit"):
        read_initial(tiny_onnx, replace(config, network=replace(config.network, width=8)))


@pytest.mark.parametrize("detail_width", [0, 8])
def test_another_head_is_begun_anew(
    detail_width: int, config: TrainConfig, tiny_checkpoint: Path
) -> None:
    from clickseg_export.onnx_weights import read_initial

    other = replace(config, network=replace(config.network, detail_width=detail_width))
    state, _ = read_initial(tiny_checkpoint, other)
    build_network(other.network, len(config.model.spec().channels)).load_state_dict(state)
    same, _ = read_initial(tiny_checkpoint, config)
    for name in same:
        if not name.startswith("classifier."):
            assert torch.equal(state[name], same[name]), name
    assert all(name.startswith("classifier.") for name in set(same) ^ set(state))


def test_epochs_are_counted_in_objects(
    dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    one = replace(dataset, train=dataset.train[:1])
    objects = len(load_case(dataset.train[0]).objects)
    settings = replace(config, epochs=2, sampling=replace(config.sampling, clicks=1))
    checkpoint = read_checkpoint(train([one], tmp_path / "run", settings))
    assert checkpoint.step == objects  # two epochs, two objects a step


def test_held_out_labels_are_never_drawn(
    dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    names = {o.value: f"object {o.value}" for o in load_case(dataset.train[0]).objects}
    named = replace(dataset, labels=names, train=dataset.train[:1])
    kept_out = tuple(name for value, name in names.items() if value != 9)
    sampling = replace(config.sampling, labels=1.0, regions=0, supervoxels=0, pasted=0)
    sampling = replace(sampling, held_out=kept_out)
    cache = CaseCache(tmp_path / "cases", named.train)
    draw = Draw([named], cache, replace(config, sampling=sampling))
    assert draw.labelled_objects == 1
    nothing = replace(config, sampling=replace(sampling, held_out=tuple(names.values())))
    with pytest.raises(cs.DatasetError, match="no training case has a label"):
        Draw([named], cache, nothing)


def test_tensorboard_gets_scalars_and_pictures(
    dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train([dataset], tmp_path / "run", replace(config, picture_every=2))
    events = EventAccumulator(str(tmp_path / "run" / FOLDER))
    events.Reload()
    assert {"loss", "learning_rate", "steps_per_second"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("objects")] == [2, 4]


def test_a_picture_shows_truth_answer_and_clicks() -> None:
    spec = make_spec()
    inputs = np.full((len(spec.channels), *spec.patch_size), -1.0, np.float32)
    inputs[1:] = 0
    truth = np.zeros(spec.patch_size, np.float32)
    truth[10:20, 4:12, 4:12] = 1
    inputs[1, 10:20, 7, 7] = 1
    answer = np.zeros(spec.patch_size, bool)
    answer[10:20, 20:24, 20:24] = True
    shown = picture(spec, inputs, truth, answer)
    assert shown.shape == (32, 32, 3)
    y = 31 - 7  # anterior is at the top
    assert tuple(shown[y, 7]) == (0, 1, 1)
    assert shown[31 - 4, 4, 1] > shown[31 - 4, 4, 0]  # green
    assert shown[31 - 20, 20, 0] > shown[31 - 20, 20, 1] > shown[31 - 20, 20, 2]  # orange
    assert not shown[0, 0].any()


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
    more = replace(dataset, name="more")
    with pytest.raises(cs.CheckpointError, match=rf"learns from {dataset.name}, in that order"):
        train([dataset, more], tmp_path / "run", config, resume=True)
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
    assert sorted(os.listdir(tmp_path / "run")) == [CACHE, "last.ckpt", LOG, FOLDER]


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


@pytest.mark.parametrize(("settle", "batches"), [(0.0, 4), (0.5, 2), (1.0, 0)])
def test_normalisation_settles(
    settle: float, batches: int, dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    path = train([dataset], tmp_path / "run", replace(config, settle=settle))
    state = read_checkpoint(path).network
    seen = {int(v) for name, v in state.items() if name.endswith("num_batches_tracked")}
    assert seen == {batches}


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
    quiet = replace(settings, steps=3, validate_every=0)
    assert read_checkpoint(train([one], tmp_path / "run", quiet, resume=True)).step == 3


def test_random_clicks_lie_on_the_object() -> None:
    truth = np.zeros((9, 9, 9), bool)
    truth[2:5, 3:6, 4:7] = True
    clicks = random_clicks(truth, 5, 0)
    assert len(set(clicks)) == 5
    assert all(truth[click.zyx] for click in clicks)
    assert clicks == random_clicks(truth, 5, 0)
    assert len(random_clicks(truth, 100, 0)) == 27
