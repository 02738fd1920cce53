"""`clickseg bench`."""

from pathlib import Path
from typing import Annotated

import typer

from clickseg_cli import options
from clickseg_cli.progress import progress_bar


def bench(
    image: Annotated[Path, typer.Argument(help="CT scan, .nii or .nii.gz.")],
    clicks: Annotated[int, typer.Option(min=1, help="How many clicks are measured.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the places that are clicked.")] = 0,
    model: options.Model = None,
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Measure clicks on a scan, from the click to the mask and stage by stage.

    Random objects are clicked, ten clicks each. Times are milliseconds at the 50th, 95th and 99th
    percentile; overhead is all that is not the network.
    """
    import json

    from clickseg_infer.latency import measure
    from clickseg_infer.start import open_scan
    from clickseg_infer.stopwatch import Stopwatch

    watch = Stopwatch()
    volume, loaded = open_scan(image, model, engine=engine, precision=precision)
    open_ms = round(watch.total_ms, 1)
    with loaded, progress_bar("clicks") as report:
        report_of = {"open_ms": open_ms, **measure(loaded, volume, clicks, seed, report)}
    if as_json:
        print(json.dumps(report_of))
        return
    print(f"{'ms':12}{'p50':>8}{'p95':>8}{'p99':>8}")
    rows = {"click": report_of["click_ms"], "overhead": report_of["overhead_ms"]}
    for name, values in {**rows, **report_of["stages_ms"]}.items():
        print(f"{name:12}" + "".join(f"{value:8.1f}" for value in values.values()))
    told = report_of["engine"]
    print(
        f"opened in {open_ms:.0f} ms, first click {report_of['first_click_ms']:.0f} ms; "
        f"{report_of['patches']} patches per click; peak {report_of['peak_mb']:.0f} MiB; "
        f"{told['name']}, {told['precision']}; {report_of['machine']['cores']} cores"
    )
