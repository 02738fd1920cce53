"""`clickseg segment`."""

from pathlib import Path
from typing import Annotated

import typer

from clickseg_cli import options


def segment(
    image: Annotated[Path, typer.Argument(help="CT scan, .nii or .nii.gz.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The mask, .nii or .nii.gz.")],
    clicks: Annotated[
        list[Path] | None,
        typer.Option(
            help="Click file: clickseg's JSON, MONAI Label's, or Slicer's .mrk.json. Repeatable."
        ),
    ] = None,
    positive: Annotated[
        list[str] | None,
        typer.Option(
            metavar="I,J,K", help="A voxel (as in NIfTI tools) on the object. Repeatable."
        ),
    ] = None,
    negative: Annotated[
        list[str] | None, typer.Option(metavar="I,J,K", help="A voxel beside it. Repeatable.")
    ] = None,
    model: options.Model = None,
    engine: options.Engine = "auto",
    precision: options.Precision = "auto",
    whole_volume: Annotated[
        bool, typer.Option("--whole-volume", help="Sweep the whole volume after the last click.")
    ] = False,
    preview: Annotated[Path | None, typer.Option(help="Also write a picture, .png.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Clicks in, a mask out.

    Clicks may come from files, from the options, or from both: first the files', then positive
    ones, then negative ones.
    """
    import json
    import sys

    from clickseg_infer.atomic_write import check_writable
    from clickseg_infer.clicks import parse_voxel, read_clicks
    from clickseg_infer.files import check_nifti_name, read_volume, write_mask
    from clickseg_infer.model import load_model
    from clickseg_infer.predicting import predict
    from clickseg_infer.preview import check_preview_name, write_preview
    from clickseg_infer.stopwatch import Stopwatch

    check_nifti_name(out)
    check_writable(out, image, model, *(clicks or ()))
    if preview is not None:
        check_preview_name(preview)
    watch = Stopwatch()
    with watch.stage("read"):
        volume = read_volume(image)
        given = tuple(click for path in clicks or () for click in read_clicks(path, volume))
        given += tuple(parse_voxel(text, True, volume) for text in positive or ())
        given += tuple(parse_voxel(text, False, volume) for text in negative or ())
    with watch.stage("load_model"):
        loaded = load_model(model, engine=engine, precision=precision)
    with loaded:
        answer = predict(loaded, volume, given, whole_volume=whole_volume)
    with watch.stage("write"):
        mask = answer.mask
        write_mask(out, mask, like=volume)
        if preview is not None:
            write_preview(preview, volume, mask, given)
    missed = sum(click.positive and not mask[click.zyx] for click in given)
    if missed:
        print(f"clickseg: {missed} positive clicks lie outside the mask", file=sys.stderr)
    report = {
        "mask": {"voxels": answer.voxels, "ml": answer.voxels * volume.voxel_ml},
        "engine": {"name": loaded.engine.name, "precision": loaded.engine.precision},
        "patches": answer.patches,
        "ms": {"total": watch.total_ms, **watch.ms, **answer.ms},
    }
    if as_json:
        print(json.dumps(report))
        return
    positives = sum(click.positive for click in given)
    print(
        f"{out}: {answer.voxels} voxels, {answer.voxels * volume.voxel_ml:.1f} ml; "
        f"clicks: {positives} positive, {len(given) - positives} negative; "
        f"patches: {answer.patches}; {watch.total_ms / 1e3:.2f} s "
        f"({loaded.engine.name}, {loaded.engine.precision})"
    )
