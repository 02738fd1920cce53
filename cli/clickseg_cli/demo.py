"""`clickseg demo`."""

from pathlib import Path
from typing import Annotated

import typer

from clickseg_cli import options


def demo(
    image: Annotated[
        Path | None, typer.Argument(help="CT scan, .nii or .nii.gz; others can be opened later.")
    ] = None,
    model: options.Model = None,
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    refine: options.Refine = "none",
    folder: Annotated[
        Path | None, typer.Option(help="A folder whose scans the page may open.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any that is free.")
    ] = 8642,
    host: Annotated[
        str, typer.Option(help="Listen at this address instead, so that others can connect.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(help="Whoever connects needs it. Beyond this machine one is made up."),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open the page, only say where it is.")
    ] = False,
) -> None:
    """Click in a browser: a page that shows the scan and a mask after every click."""
    from clickseg_infer.server.serve import bind, check_viewer, serve

    check_viewer()
    address = bind(host, port, token)

    from clickseg_infer.server.opening import Demo
    from clickseg_infer.server.registry import Registry
    from clickseg_infer.server.scans import Scans
    from clickseg_infer.start import load_ready_model, open_scan

    scans, volume = Scans(image, folder), None
    if image is None:
        loaded = load_ready_model(model, engine=engine, precision=precision, refine=refine)
    else:
        volume, loaded = open_scan(image, model, engine=engine, precision=precision, refine=refine)
    with loaded.shared() as shared:
        print(f"clickseg demo: {address.url} (Ctrl-C ends it)", flush=True)
        serve(Demo(shared, scans, Registry(), volume), address, browser=not no_browser)
