"""`clickseg replay`."""

from pathlib import Path
from typing import Annotated

import typer

from clickseg_cli import options


def replay(
    clicks: Annotated[Path, typer.Argument(help="Recording (segment --record), or click file.")],
    image: Annotated[Path, typer.Option(help="The CT scan that was clicked, .nii or .nii.gz.")],
    expect: Annotated[
        bool, typer.Option("--expect", help="Fail unless every mask is the recorded one.")
    ] = False,
    mask: options.StartMask = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the last mask.")] = None,
    model: options.Model = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, openvino or onnxruntime; the recorded one without it.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32 or bfloat16; the recorded one without it.")
    ] = None,
    refine: Annotated[
        str | None, typer.Option(help="none, or fbrs...; as recorded without it.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Answer the clicks of a session again, one after the other, and compare the masks.

    With --expect, a replay that cannot or does not lead to the recorded masks fails, and the first
    thing that differs is named: image, first mask, model, engine, precision, refinement, or a
    click's mask.
    """
    import json

    from clickseg_infer import recording as recordings
    from clickseg_infer.atomic_write import check_writable
    from clickseg_infer.files import check_nifti_name, read_label, read_volume, write_mask
    from clickseg_infer.model import load_model

    if out is not None:
        check_nifti_name(out)
        check_writable(out, image, model, clicks, mask)
    volume = read_volume(image)
    start = read_label(mask, like=volume) if mask else None
    recording = recordings.read_recording(clicks, volume)
    steps = []
    with load_model(
        model,
        engine=engine or recording.engine or "auto",
        precision=precision or recording.precision or "auto",
        refine=refine or recording.refine or "none",
    ) as loaded:
        for step in recordings.replay(loaded, volume, recording, start, expect=expect):
            answer, count = step.answer, len(step.answer.clicks)
            steps.append({"after": count, "voxels": answer.voxels, "mask_sha256": step.mask})
            if not as_json:
                said = ", not as recorded" if step.differs else ", as recorded"
                print(f"click {count}: {answer.voxels} voxels{said if step.recorded else ''}")
        if out is not None:
            write_mask(out, answer.mask, like=volume)
    if as_json:
        print(json.dumps({"steps": steps}))
