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
        typer.Option(
            help="A TOML file, or one that ships: light (the default), finetune, structures, "
            "spleen, liver, lung."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the folder's last checkpoint and its settings."),
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Begin with the weights of a model (.onnx) or checkpoint (.ckpt); "
            "'bundled' for the bundled model's.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps in all, instead of the configuration's.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs in all, instead of the configuration's steps.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Threads that prepare objects and clicks.")
    ] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Folder for preprocessed cases; OUT/cases without it.")
    ] = None,
) -> None:
    """Train a model on one or more datasets.

    Every step is logged in OUT/log.jsonl and for TensorBoard in OUT/tensorboard; OUT/last.ckpt is
    what `clickseg export` takes. On several cards or machines:
    torchrun --nproc-per-node N -m clickseg_train DATASET... --out OUT
    """
    from dataclasses import replace

    from clickseg_export.onnx_weights import read_initial

    from clickseg_cli.progress import progress_bar, training_progress
    from clickseg_infer.errors import ConfigError
    from clickseg_infer.model import DEFAULT_MODEL
    from clickseg_infer.model_spec import Source
    from clickseg_train.cases import read_dataset
    from clickseg_train.checkpoint import read_checkpoint
    from clickseg_train.config import read_config
    from clickseg_train.parallel import leads
    from clickseg_train.train import CHECKPOINT
    from clickseg_train.train import train as run

    if steps is not None and epochs is not None:
        raise ConfigError("give --steps or --epochs, not both")
    if resume and init is not None:
        raise ConfigError("give --resume or --init, not both: a resumed run has its weights")
    if resume and config is None:
        settings = read_checkpoint(out / CHECKPOINT).config
    else:
        settings = read_config(config or "light")
    if steps is not None:
        settings = replace(settings, steps=steps, epochs=0)
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    initial = None
    sources: tuple[Source, ...] = ()
    if init is not None:
        path = DEFAULT_MODEL if str(init) == "bundled" else init
        initial, spec = read_initial(path, settings)
        sources = spec.trained_on
    folders = [read_dataset(folder) for folder in datasets]
    with progress_bar("cases") as on_case, training_progress() as report:
        checkpoint = run(
            folders,
            out,
            settings,
            resume=resume,
            initial=initial,
            sources=sources,
            cache=cache,
            device=device,
            workers=workers,
            report=report,
            on_case=on_case,
        )
    if leads():
        print(f"{checkpoint}: {read_checkpoint(checkpoint).step} steps")
