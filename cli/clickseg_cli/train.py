"""`clickseg train`."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    datasets: Annotated[
        list[Path], typer.Argument(metavar="DATASET...", help="Decathlon folders (dataset.json).")
    ],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    config: Annotated[
        str | None,
        typer.Option(help="A TOML file, or one that ships: light (the default), seed."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the folder's last checkpoint and its settings."),
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Steps in all, instead of the configuration's.")
    ] = None,
) -> None:
    """Train a model on one or more datasets.

    Every step is logged in OUT/log.jsonl; OUT/last.ckpt is what `clickseg export` takes.
    """
    from dataclasses import replace

    from clickseg_cli.progress import training_progress
    from clickseg_train.cases import read_dataset
    from clickseg_train.checkpoint import read_checkpoint
    from clickseg_train.config import read_config
    from clickseg_train.train import CHECKPOINT
    from clickseg_train.train import train as run

    if resume and config is None:
        settings = read_checkpoint(out / CHECKPOINT).config
    else:
        settings = read_config(config or "light")
    if steps is not None:
        settings = replace(settings, steps=steps)
    folders = [read_dataset(folder) for folder in datasets]
    with training_progress(settings.steps) as report:
        checkpoint = run(folders, out, settings, resume=resume, report=report)
    print(f"{checkpoint}: {settings.steps} steps")
