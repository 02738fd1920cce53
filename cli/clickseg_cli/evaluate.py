"""`clickseg evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from clickseg_cli import options

_OF_CLICKS = {
    "user": "--user",
    "split": "--split",
    "image": "--image",
    "label": "--label",
    "label_names": "--object",
    "max_clicks": "--max-clicks",
    "baseline": "--baseline",
}  # what only the protocol "clicks" knows


def evaluate(
    context: typer.Context,
    dataset: Annotated[
        Path | None,
        typer.Argument(help="A Decathlon folder, or a folder of .npz for --protocol cvpr2025."),
    ] = None,
    model: options.Model = None,
    protocol: Annotated[
        str, typer.Option(help="clicks, or cvpr2025 for that challenge's files and measures.")
    ] = "clicks",
    truths: Annotated[
        Path | None,
        typer.Option(help="Folder with the cases' 'gts' for cvpr2025, where they lie apart."),
    ] = None,
    user: Annotated[
        str,
        typer.Option(help="Who clicks: centre (of the largest error), fbrs (deepest), noisy."),
    ] = "centre",
    split: Annotated[str, typer.Option(help="val, train or all cases of a dataset.")] = "val",
    image: Annotated[Path | None, typer.Option(help="One image, instead of a dataset.")] = None,
    label: Annotated[Path | None, typer.Option(help="Its label file.")] = None,
    label_names: Annotated[
        list[str] | None,
        typer.Option(
            "--object", help="Only objects of this name or value; all without it. Repeatable."
        ),
    ] = None,
    max_clicks: Annotated[int, typer.Option(min=1, help="Clicks for each object.")] = 10,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Answer the same clicks by region growing too.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for a CSV and pictures (or .npz and a CSV)."),
    ] = None,
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    refine: options.Refine = "none",
    as_json: options.AsJson = False,
) -> None:
    """Let a simulated user correct the model's answers, and measure each of them."""
    import json

    from clickseg_infer.atomic_write import make_folder
    from clickseg_infer.errors import DatasetError
    from clickseg_infer.model import load_model
    from clickseg_train.cvpr2025 import evaluate_folder
    from clickseg_train.evaluate import TARGETS, ObjectResult, Protocol, choose_cases, values_named
    from clickseg_train.evaluate import evaluate as run

    if protocol == "cvpr2025":
        if dataset is None or out is None:
            raise DatasetError("the cvpr2025 protocol needs a folder of .npz files and --out")
        for name, option in _OF_CLICKS.items():
            source = context.get_parameter_source(name)  # Typer's own copy of click's, or click's
            if source is not None and source.name == "COMMANDLINE":
                raise DatasetError(f"the cvpr2025 protocol has its own rules, without {option}")
        with load_model(model, engine=engine, precision=precision, refine=refine) as loaded:
            means = evaluate_folder(loaded, dataset, out, truths)
        print(json.dumps(means) if as_json else "  ".join(f"{k} {v:.4f}" for k, v in means.items()))
        return
    if protocol != "clicks":
        raise DatasetError(f"unknown protocol {protocol!r}, allowed are clicks and cvpr2025")
    if truths is not None:
        raise DatasetError("--truths goes with --protocol cvpr2025")
    known, cases = choose_cases(dataset, split, image, label)
    names = known.labels if known else {}
    values = values_named(label_names or (), known)
    settings = Protocol(max_clicks, user, baseline=baseline)
    if out is not None:
        make_folder(out)
    shown = 0

    def show(result: ObjectResult) -> None:
        nonlocal shown
        if shown == 0:
            print("image, object, Dice after each click")
        shown += 1
        scores = " ".join(f"{value:.3f}" for value in result.dice)
        print(f"{result.image}  {names.get(result.label_value, result.label_value)}  {scores}")

    with load_model(model, engine=engine, precision=precision, refine=refine) as loaded:
        report = (lambda _: None) if as_json else show
        result = run(loaded, cases, settings, values, report)
        if out is not None:
            from clickseg_train.evaluation_report import write_report

            write_report(out, result, loaded, {str(case.image): case for case in cases}, names)
    if as_json:
        print(json.dumps(result.as_json()))
        return
    for title, measure in (
        ("mean Dice", "dice"),
        ("surface Dice at 2 mm", "surface_dice"),
        ("volume error", "volume_error"),
        ("region growing's Dice", "baseline_dice"),
    ):
        if getattr(result.cases[0], measure):
            print(f"{title:<22}" + " ".join(f"{value:.3f}" for value in result.mean(measure)))
    for target in TARGETS:
        print(
            f"Dice {target:.2f}: {result.clicks_to(target):.1f} clicks on average; "
            f"{result.failures(target)} of {len(result.cases)} objects never, counted {max_clicks}"
        )
    print(f"median {result.median_click_ms:.0f} ms a click")
