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
    refine: options.Refine = "none",
    whole_volume: Annotated[
        bool, typer.Option("--whole-volume", help="Sweep the whole volume after the last click.")
    ] = False,
    mask: options.StartMask = None,
    record: Annotated[
        Path | None, typer.Option(help="Also write clicks and mask hashes, for `clickseg replay`.")
    ] = None,
    preview: Annotated[Path | None, typer.Option(help="Also write a picture, .png.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Clicks in, a mask out.

    Clicks may come from files, from the options, or from both: first the files', then positive
    ones, then negative ones.
    """
    import json
    import sys
    from dataclasses import asdict

    from clickseg_infer.atomic_write import check_writable
    from clickseg_infer.clicks import check_clicks, parse_voxel, read_clicks
    from clickseg_infer.errors import ClickError
    from clickseg_infer.files import check_nifti_name, read_label, write_mask
    from clickseg_infer.meaning import likeliest
    from clickseg_infer.start import open_scan
    from clickseg_infer.stopwatch import Stopwatch

    check_nifti_name(out)
    inputs = (image, model, mask, *(clicks or ()))
    check_writable(out, *inputs)
    if record is not None:
        check_writable(record, *inputs, out)
        if whole_volume:
            raise ClickError("--record and --whole-volume exclude each other")
    if preview is not None:
        from clickseg_infer.preview import check_preview_name, write_preview

        check_preview_name(preview)
    watch = Stopwatch()
    with watch.stage("open"):
        volume, loaded = open_scan(image, model, engine=engine, precision=precision, refine=refine)
    with loaded:
        # These load what `open_scan` has loaded beside the scan.
        from clickseg_infer import recording
        from clickseg_infer.predicting import predict
        from clickseg_infer.session import Session

        given = tuple(click for path in clicks or () for click in read_clicks(path, volume))
        given += tuple(parse_voxel(text, True, volume) for text in positive or ())
        given += tuple(parse_voxel(text, False, volume) for text in negative or ())
        session = Session(loaded, volume, read_label(mask, like=volume) if mask else None)
        if mask is None:
            check_clicks(given, volume)
        if whole_volume:
            answer = predict(loaded, volume, given, session.start, whole_volume=True)
        else:
            session.set_clicks(given)
            answer = session.prediction
        if record is not None:
            recording.write_recording(record, recording.record(session), volume)
    with watch.stage("write"):
        found = answer.mask
        write_mask(out, found, like=volume)
        if preview is not None:
            write_preview(preview, volume, found, given)
    for name, reason in loaded.passed_over.items():
        if not reason.startswith("no NVIDIA GPU"):  # nobody without one expects it
            print(f"clickseg: not {name}: {reason}", file=sys.stderr)
    missed = sum(click.positive and not found[click.zyx] for click in given)
    if missed:
        print(f"clickseg: {missed} positive clicks lie outside the mask", file=sys.stderr)
    refined = answer.refinement
    if refined is not None and refined.corrected and not as_json:
        print(
            f"clickseg: {refined.corrected} clicks are obeyed by a ball around them, "
            "the network was not to be had",
            file=sys.stderr,
        )
    known = likeliest(answer.meant, loaded.spec.structures)
    report = {
        "mask": {"voxels": answer.voxels, "ml": answer.voxels * volume.voxel_ml},
        "engine": {
            "name": loaded.engine.name,
            "precision": loaded.engine.precision,
            "passed_over": dict(loaded.passed_over),
        },
        "structure": {"name": known[0], "chance": known[1]} if known else None,
        "patches": answer.patches,
        "refinement": asdict(refined) if refined else None,
        "ms": {"total": watch.total_ms, **watch.ms, **answer.ms},
    }
    if as_json:
        print(json.dumps(report))
        return
    if known:
        print(f"looks like: {known[0]} ({known[1]:.2f})")
    positives = sum(click.positive for click in given)
    print(
        f"{out}: {answer.voxels} voxels, {answer.voxels * volume.voxel_ml:.1f} ml; "
        f"clicks: {positives} positive, {len(given) - positives} negative; "
        f"patches: {answer.patches}; {watch.total_ms / 1e3:.2f} s "
        f"({loaded.engine.name}, {loaded.engine.precision})"
    )
