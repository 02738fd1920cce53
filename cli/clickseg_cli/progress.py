"""Progress bars, on the terminal's error stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clickseg_train.reports import Report, StepReport, ValidationReport

_SHOWN_CLICKS = (1, 3, 5)
_RECENT = 400  # objects that the shown means are taken over
_PLAIN_EVERY = 100  # steps between lines where there is no terminal for a bar


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is moved by `(done, total)`."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True))
    task = bar.add_task(what)

    def report(done: int, total: int) -> None:
        bar.start()  # not before the first case, so that a refusal remains one line
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def training_progress() -> Iterator[Report]:
    """A bar with the loss, Dice after 1, 3 and 5 clicks, steps per second and the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from clickseg_train.reports import ValidationReport

    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(bar_width=8),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    losses: deque[float] = deque(maxlen=100)
    seconds: deque[float] = deque(maxlen=100)
    dice: dict[int, deque[float]] = {n: deque(maxlen=_RECENT) for n in _SHOWN_CLICKS}

    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task("train", total=None, state="")

    def report(result: StepReport | ValidationReport) -> None:
        bar.start()  # not before the first step, so that a refusal remains one line
        if isinstance(result, ValidationReport):
            scores = " ".join(f"{value:.3f}" for value in result.mean_dice)
            bar.console.print(f"step {result.step}: validation Dice by click {scores}")
            return
        losses.append(result.loss)
        seconds.append(result.seconds)
        for _, clicks, value in result.objects:
            if clicks in dice:
                dice[clicks].append(value)
        shown = " ".join(_mean(dice[n]) for n in _SHOWN_CLICKS)
        speed = len(seconds) / sum(seconds)
        state = f"loss {_mean(losses)} Dice@1,3,5 {shown} {speed:.1f}/s"
        bar.update(task, completed=result.step, total=result.steps, state=state)
        if not bar.console.is_terminal and result.step % _PLAIN_EVERY == 0:
            bar.console.print(f"step {result.step}/{result.steps} {state}")

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


def _mean(values: deque[float]) -> str:
    return f"{sum(values) / len(values):.2f}" if values else "-"
