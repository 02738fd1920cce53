"""The training loop."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from clickseg_infer.atomic_write import make_folder, write_whole
from clickseg_infer.errors import CheckpointError, ConfigError, DatasetError
from clickseg_infer.model_spec import Source
from clickseg_train.case_cache import CaseCache
from clickseg_train.cases import Dataset
from clickseg_train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from clickseg_train.config import TrainConfig
from clickseg_train.drawing import Batch
from clickseg_train.feeds import GROUPS
from clickseg_train.learner import Learner, rate
from clickseg_train.lessons import lesson_of
from clickseg_train.parallel import Place, gathered, joined, wait_for_all
from clickseg_train.reports import Report, StepReport, ValidationReport
from clickseg_train.tensorboard import Board
from clickseg_train.validate import validate

CHECKPOINT = "last.ckpt"
LOG = "log.jsonl"
CACHE = "cases"


def train(
    datasets: Sequence[Dataset],
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    initial: Mapping[str, Tensor] | None = None,
    sources: Sequence[Source] = (),
    cache: Path | None = None,
    device: str = "auto",
    workers: int = 2,
    report: Report = lambda _: None,
    on_case: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Train a network and leave its checkpoint at `out / "last.ckpt"`.

    Under `torchrun` several processes train one network, each with `config.batch` objects a step;
    the first of them writes and reports.

    Args:
        datasets: learnt from; only their training cases are read.
        out: the run's folder, made if its parent exists.
        config: of the run.
        resume: go on from the folder's checkpoint, which must have been made with these
            datasets, this configuration (but for its length, validation and pictures, and names and
            texts of the model) and as many processes.
        initial: a state of the network to begin with, instead of random weights.
        sources: what those weights were trained on.
        cache: where preprocessed cases are kept; without it, in `out / "cases"`.
        device: "auto" for a CUDA card where there is one, else the CPU; or a name of torch's.
        workers: threads that prepare objects and clicks while the network learns.
        report: called after every step and every validation.
        on_case: called with (done, total) after each case that was made ready.

    Returns:
        The checkpoint's path.

    Raises:
        DatasetError: no dataset has a training case.
        ConfigError: a device that cannot be used, or a structure branch that nothing teaches.
        CheckpointError: a folder with a checkpoint and no `resume`, or the other way round, another
            configuration or other datasets than the checkpoint's, or weights of another network.
        TrainingError: the loss is no longer finite; the last checkpoint stays.
        FileError: a case cannot be read, or the folder cannot be made or written to.
    """
    if not any(dataset.train for dataset in datasets):
        raise DatasetError("no dataset has a case to train on")
    if config.network.structures and config.learns == "clicks" and not (initial or resume):
        raise ConfigError("nothing teaches network.structures: begin with weights that know them")
    path, spec = out / CHECKPOINT, config.model.spec()
    with joined(device) as place:
        if place.leads:
            _check(path, out, resume)
        wait_for_all(place)
        before = read_checkpoint(path) if resume else None
        if before is not None:
            _check_same_run(path, before, config, _names(datasets))
        cases = [case for dataset in datasets for case in dataset.train]
        if place.leads:  # the others find everything ready
            CaseCache(cache or out / CACHE, cases, on_case)
        wait_for_all(place)
        lesson = lesson_of(datasets, CaseCache(cache or out / CACHE, cases), config, spec)
        config = _in_steps(config, lesson.looks(), place)
        if before is not None and before.step > config.steps:
            raise CheckpointError(f"{path}: is at step {before.step} of {config.steps} already")
        step, known = (before.step, before.trained_on) if before else (0, tuple(sources))
        if place.leads:
            _tidy(out, step)
        batches = lesson.feed(place.rank * config.batch, workers)
        with batches, Board(out if place.leads else None, spec, config, step) as board:
            batches.begin(step)
            ahead = range(step, step + GROUPS) if initial else ()
            examples = [batches.take(later).inputs for later in ahead]
            learner = Learner(config, spec, lesson, place, before, initial, examples)
            record = _Record(out, config, datasets, known, learner, board, report)
            if place.leads and before is None:
                record.checkpoint(step)
            while step < config.steps:
                began = time.perf_counter()
                batch = batches.take(step)
                logits, loss = learner.learn(batch, step)
                if isinstance(batch, Batch):
                    board.picture(step + 1, batch, logits.numpy())
                batches.answer(step, logits.numpy())
                step += 1
                objects = gathered(place, lesson.scores(logits, batch))
                losses = gathered(place, [loss])
                if place.leads:
                    seconds = time.perf_counter() - began
                    mean = sum(losses) / len(losses)
                    record.step(StepReport(step, config.steps, mean, tuple(objects), seconds))
                if step % config.checkpoint_every == 0:
                    wait_for_all(place)
    return path


class _Record:
    """What the first process writes and reports."""

    def __init__(
        self,
        out: Path,
        config: TrainConfig,
        datasets: Sequence[Dataset],
        trained_on: tuple[Source, ...],
        learner: Learner,
        board: Board,
        report: Report,
    ) -> None:
        self._out, self._config, self._learner = out, config, learner
        self._board, self._report = board, report
        self._kept = [case for dataset in datasets for case in dataset.val]
        self._datasets = _names(datasets)
        own = (Source(d.name, d.licence or "not stated") for d in datasets if d.train)
        self._trained_on = tuple(dict.fromkeys((*trained_on, *own)))

    def step(self, done: StepReport) -> None:
        """Log a step; validate and write a checkpoint where it is time to."""
        config, step = self._config, done.step
        self._tell(done)
        self._board.step(done, rate(config, step - 1))
        if config.validate_every and step % config.validate_every == 0:
            found = validate(self._learner.average.module, self._kept, config, step)
            self._tell(found)
            self._board.validation(found)
        if step % config.checkpoint_every == 0 or step == config.steps:
            self.checkpoint(step)

    def checkpoint(self, step: int) -> None:
        """Write the checkpoint of `step`."""
        state = self._learner.checkpoint(step, self._trained_on, self._datasets)
        write_checkpoint(self._out / CHECKPOINT, state)

    def _tell(self, result: StepReport | ValidationReport) -> None:
        with (self._out / LOG).open("a") as file:
            file.write(json.dumps(vars(result)) + "\n")
        self._report(result)


def _in_steps(config: TrainConfig, looks: int, place: Place) -> TrainConfig:
    """The configuration with its length in steps, for epochs of so many looks."""
    if config.epochs == 0:
        return config
    steps = max(1, round(config.epochs * looks / (config.batch * place.processes)))
    return replace(config, steps=steps)


def _check(path: Path, out: Path, resume: bool) -> None:
    """Refuse a folder that has a checkpoint, or one that has none to resume; make a new run's."""
    if resume:
        if not path.is_file():
            raise CheckpointError(f"{path}: there is no checkpoint to resume from")
        return
    if path.exists():
        raise CheckpointError(f"{path}: exists; resume it or choose another folder")
    make_folder(out)
    write_whole(out / LOG, b"")


def _names(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """The names of those that are learnt from."""
    return tuple(dataset.name for dataset in datasets if dataset.train)


def _check_same_run(
    path: Path, before: Checkpoint, config: TrainConfig, datasets: tuple[str, ...]
) -> None:
    ours, theirs = _lasting(config), _lasting(before.config)
    changed = [key for key in ours if ours[key] != theirs[key]]
    if changed:
        raise CheckpointError(f"{path}: was made with another configuration ({', '.join(changed)})")
    if before.datasets not in ((), datasets):
        names = ", ".join(before.datasets)
        raise CheckpointError(f"{path}: learns from {names}, in that order; give the same datasets")


def _lasting(config: TrainConfig) -> dict[str, object]:
    """What must not change between the parts of a run: all that the network sees and learns by."""
    free = {"steps", "epochs", "picture_every", "model"}
    free |= {"validate_every", "validate_by", "validate_clicks"}
    lasting = {key: value for key, value in vars(config).items() if key not in free}
    model = config.model
    return {
        **lasting,
        "channels": (model.hu_windows, model.click_channels, model.click_radius, model.threshold),
    }


def _tidy(out: Path, step: int) -> None:
    """Remove what a killed run left after its checkpoint: those steps are taken again."""
    path = out / LOG
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    write_whole(path, "".join(f"{line}\n" for line in kept).encode())
    for unfinished in out.glob(f".{CHECKPOINT}.*"):
        unfinished.unlink()
