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
        str, typer.Option(help="A TOML file, or a configuration that ships: light, seed.")
    ] = "light",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Steps in all, instead of the configuration's.")
    ] = None,
) -> None:
    """Train a model on one or more datasets."""
    from dataclasses import replace

    from clickseg_cli.progress import training_progress
    from clickseg_train.cases import read_dataset
    from clickseg_train.config import read_config
    from clickseg_train.train import train as run

    settings = read_config(config)
    if steps is not None:
        settings = replace(settings, steps=steps)
    folders = [read_dataset(folder) for folder in datasets]
    with training_progress(settings.steps) as report:
        checkpoint = run(folders, out, settings, resume=resume, report=report)
    print(f"{checkpoint}: {settings.steps} steps")
