"""The training loop.

Every random choice comes from (seed, step, slot), and exercises end where a checkpoint is written.
A run that is resumed therefore goes on as the unbroken one would have.
"""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.errors import (
    CheckpointError,
    DatasetError,
    FileError,
    TrainingError,
)
from clickseg_infer.model_spec import Source
from clickseg_train import exercises
from clickseg_train.augment import augment, augmentation
from clickseg_train.cases import CaseCache, Dataset
from clickseg_train.checkpoint import Checkpoint, load_state, read_checkpoint, write_checkpoint
from clickseg_train.config import TrainConfig
from clickseg_train.exercises import Exercise
from clickseg_train.losses import click_loss, dice_by_object
from clickseg_train.networks import build_network
from clickseg_train.objects import KINDS, TrainingObject, draw_object
from clickseg_train.reports import Report, StepReport, ValidationReport
from clickseg_train.validate import validate

CHECKPOINT = "last.ckpt"
LOG = "log.jsonl"


def train(
    datasets: Sequence[Dataset],
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    report: Report = lambda _: None,
) -> Path:
    """Train a network and leave its checkpoint at `out / "last.ckpt"`.

    Args:
        datasets: learnt from in equal shares; only their training cases are read.
        out: the run's folder, made if its parent exists.
        config: of the run.
        resume: go on from the folder's checkpoint, which must have been made with this
            configuration (but for `steps`, and names and texts of the model).
        report: called after every step and every validation.

    Returns:
        The checkpoint's path.

    Raises:
        DatasetError: no dataset has a training case.
        CheckpointError: a folder with a checkpoint and no `resume`, or the other way round, or
            another configuration than the checkpoint's.
        TrainingError: the loss is no longer finite; the last checkpoint stays.
        FileError: the folder cannot be made or written to.
    """
    if not any(dataset.train for dataset in datasets):
        raise DatasetError("no dataset has a case to train on")
    path = out / CHECKPOINT
    before = _before(path, out, config, resume)
    spec = config.model.spec()
    learner = _Learner(config, len(spec.channels), before)
    step, trained_on = (before.step, before.trained_on) if before else (0, ())
    trained_on = tuple(dict.fromkeys(trained_on + _sources(datasets)))
    if before is None:
        write_checkpoint(path, learner.checkpoint(step, trained_on))
    draw = _Draw(datasets, config)
    slots: list[Exercise | None] = [None] * config.batch
    inputs = np.empty((config.batch, len(spec.channels), *config.patch_size), np.float32)
    while step < config.steps:
        began = time.perf_counter()
        for slot in range(config.batch):
            rng = np.random.default_rng([config.seed, step, slot])
            exercise = slots[slot]
            if exercise is None or exercise.rounds >= config.sampling.clicks:
                exercise = slots[slot] = exercises.start(rng, spec, draw(rng))
            exercises.prepare(exercise, rng, spec, inputs[slot])
        current = [exercise for exercise in slots if exercise is not None]
        truth = torch.from_numpy(np.stack([e.truth for e in current])[:, None]).float()
        logits, loss = learner.learn(inputs, truth, step)
        for exercise, answer in zip(current, logits.numpy(), strict=True):
            exercises.answer(exercise, answer[0], spec.threshold_logit)
        step += 1

        scores = dice_by_object(logits, truth, spec.threshold_logit).tolist()
        objects = tuple(
            (e.kind, len(e.clicks), dice) for e, dice in zip(current, scores, strict=True)
        )
        _tell(StepReport(step, loss, objects, time.perf_counter() - began), out, report)
        if config.validate_every and step % config.validate_every == 0:
            cases = [case for dataset in datasets for case in dataset.val]
            _tell(validate(learner.average.module, cases, config, step), out, report)
        if step % config.checkpoint_every == 0 or step == config.steps:
            write_checkpoint(path, learner.checkpoint(step, trained_on))
            slots = [None] * config.batch
    return path


class _Learner:
    """A network, the moving average of its weights, and what moves them."""

    def __init__(self, config: TrainConfig, channels: int, before: Checkpoint | None) -> None:
        torch.manual_seed(config.seed)
        network = build_network(config.network, channels)
        self.network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        ema = get_ema_multi_avg_fn(config.ema)
        self.average = AveragedModel(self.network, multi_avg_fn=ema, use_buffers=True)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._loss = click_loss()
        self._config = config
        if before is not None:
            load_state(self.network, before.network)
            load_state(self.average.module, before.average)
            load_state(self._optimizer, before.optimizer)
            self.average.n_averaged.fill_(before.step)
        self.network.train()

    def learn(self, inputs: NDArray[np.float32], truth: Tensor, step: int) -> tuple[Tensor, float]:
        """One optimiser step; returns the logits before it, and the loss."""
        config = self._config
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(config, step)
        batch = torch.from_numpy(inputs).to(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.autocast == "bfloat16"):
            logits = self.network(batch)
        logits = logits.float()
        loss = self._loss(logits, truth)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss became {loss.item()} at step {step + 1}; lower the rate")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self._optimizer.step()
        self.average.update_parameters(self.network)
        return logits.detach(), float(loss.detach())

    def checkpoint(self, step: int, trained_on: tuple[Source, ...]) -> Checkpoint:
        """Everything that is needed to go on from `step`."""
        return Checkpoint(
            self._config,
            step,
            network=self.network.state_dict(),
            average=self.average.module.state_dict(),
            optimizer=self._optimizer.state_dict(),
            trained_on=trained_on,
        )


def _rate(config: TrainConfig, step: int) -> float:
    """The learning rate: linear warm-up, then a cosine down to a hundredth of the peak."""
    warm_up = min(1.0, (step + 1) / max(1, config.warm_up))
    progress = max(0.0, (step - config.warm_up) / max(1, config.steps - config.warm_up))
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.learning_rate * warm_up * cosine


def _before(path: Path, out: Path, config: TrainConfig, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from; makes the folder of a new run."""
    if resume:
        if not path.is_file():
            raise CheckpointError(f"{path}: there is no checkpoint to resume from")
        before = read_checkpoint(path)
        ours, theirs = _lasting(config), _lasting(before.config)
        changed = [key for key in ours if ours[key] != theirs[key]]
        if changed:
            raise CheckpointError(
                f"{path}: was made with another configuration ({', '.join(changed)})"
            )
        if before.step > config.steps:
            raise CheckpointError(f"{path}: is at step {before.step} of {config.steps} already")
        _shorten_log(out / LOG, before.step)
        for unfinished in out.glob(f".{CHECKPOINT}.*"):  # of a run that was killed while writing
            unfinished.unlink()
        return before
    if path.exists():
        raise CheckpointError(f"{path}: exists; resume it or choose another folder")
    try:
        out.mkdir(exist_ok=True)
        (out / LOG).write_text("")
    except OSError as error:
        raise FileError(f"{out}: cannot be made: {error.strerror or error}") from error
    return None


def _lasting(config: TrainConfig) -> dict[str, object]:
    """What must not change between the parts of a run: all that the network sees and learns by."""
    free = {"steps", "cache_gb", "model"}
    lasting = {key: value for key, value in vars(config).items() if key not in free}
    model = config.model
    return {
        **lasting,
        "channels": (model.hu_windows, model.click_channels, model.click_radius, model.threshold),
    }


class _Draw:
    """Draws objects: the kind by its share, then dataset, case and object."""

    def __init__(self, datasets: Sequence[Dataset], config: TrainConfig) -> None:
        self._cases = [dataset.train for dataset in datasets if dataset.train]
        self._config = config
        self._cache = CaseCache(config.cache_gb)
        self._transform = augmentation()
        sampling = config.sampling
        shares = np.array([getattr(sampling, kind) for kind in KINDS], float)
        self._shares = shares / shares.sum()

    def __call__(self, rng: np.random.Generator) -> TrainingObject:
        for _ in range(1000):
            kind = str(rng.choice(KINDS, p=self._shares))
            cases = self._cases[rng.integers(len(self._cases))]
            case = self._cache.load(cases[rng.integers(len(cases))])
            sampling, size = self._config.sampling, self._config.patch_size
            item = draw_object(rng, case, kind, sampling, size)
            if item is not None:
                item = augment(self._transform, item, rng)
                if item.truth.any():
                    return item
        raise DatasetError("1000 draws found no object: are the labels empty?")


def _tell(result: StepReport | ValidationReport, out: Path, report: Report) -> None:
    with (out / LOG).open("a") as file:
        file.write(json.dumps(vars(result)) + "\n")
    report(result)


def _shorten_log(path: Path, step: int) -> None:
    """Leave out what a killed run logged after its checkpoint: those steps are taken again."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    write_whole(path, "".join(f"{line}\n" for line in kept).encode())


def _sources(datasets: Sequence[Dataset]) -> tuple[Source, ...]:
    return tuple(Source(d.name, d.licence or "not stated") for d in datasets if d.train)
