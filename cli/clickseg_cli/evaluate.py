"""`clickseg evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from clickseg_cli import options


def evaluate(
    dataset: Annotated[
        Path | None, typer.Argument(help="A Decathlon folder; or give --image and --label.")
    ] = None,
    model: options.Model = None,
    split: Annotated[str, typer.Option(help="val, train or all of the dataset's cases.")] = "val",
    image: Annotated[Path | None, typer.Option(help="One CT scan instead of a dataset.")] = None,
    label: Annotated[Path | None, typer.Option(help="Its label file.")] = None,
    label_value: Annotated[
        int | None, typer.Option(min=1, help="Only this object; every value is one without it.")
    ] = None,
    max_clicks: Annotated[int, typer.Option(min=1, help="Clicks for each object.")] = 10,
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Let a simulated user click the middle of the largest error, and report Dice."""
    import json

    from clickseg_infer.model import load_model
    from clickseg_train.evaluate import TARGETS, ObjectResult, choose_cases
    from clickseg_train.evaluate import evaluate as run

    cases = choose_cases(dataset, split, image, label)

    shown = 0

    def show(result: ObjectResult) -> None:
        nonlocal shown
        if shown == 0:
            print("image, label value, Dice after each click")
        shown += 1
        scores = " ".join(f"{value:.3f}" for value in result.dice)
        print(f"{result.image}  {result.label_value:>3}  {scores}")

    with load_model(model, engine=engine, precision=precision) as loaded:
        report = (lambda _: None) if as_json else show
        result = run(loaded, cases, max_clicks, label_value, report)
    if as_json:
        print(json.dumps(result.as_json()))
        return
    print("mean Dice by click  " + " ".join(f"{value:.3f}" for value in result.mean_dice))
    for target in TARGETS:
        print(
            f"Dice {target:.2f}: {result.clicks_to(target):.1f} clicks on average; "
            f"{result.failures(target)} of {len(result.cases)} objects never, counted {max_clicks}"
        )
    print(f"median {result.median_click_ms:.0f} ms a click")
