"""What a page saves: the label map, and the clicks as files that the command line reads."""

import io
import json
import re
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clickseg_infer.clicks import Clicks, click_content
from clickseg_infer.errors import ServerError
from clickseg_infer.files import write_mask
from clickseg_infer.recording import record, recording_content
from clickseg_infer.server.labelling import LabelledObject, Labelling, threshold_of
from clickseg_infer.volume import Volume


def mask_bytes(labelling: Labelling) -> bytes:
    """The label map as .nii.gz on the grid of the scan."""
    with TemporaryDirectory(prefix="clickseg-") as folder:
        path = Path(folder) / "mask.nii.gz"
        write_mask(path, labelling.labels, like=labelling.volume)
        return path.read_bytes()


def clicks_file(labelling: Labelling) -> tuple[str, bytes]:
    """A file's name and content: one object's click file, or a zip of several objects'.

    Raises:
        ServerError: nothing was clicked.
    """
    stem = stem_of(labelling)
    files = {
        f"{stem}_{labelled.number}_{_plain(labelled.name)}.json": _json(labelling, labelled)
        for labelled in labelling.objects
        if labelled.session.clicks
    }
    if not files:
        raise ServerError("there are no clicks to save")
    if len(files) == 1:
        return f"{stem}_clicks.json", next(iter(files.values()))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return f"{stem}_clicks.zip", content.getvalue()


def stem_of(labelling: Labelling) -> str:
    """The scan's name without folder and suffix, fit for a file's name."""
    name = labelling.name.replace("\\", "/").rsplit("/", 1)[-1]
    return _plain(re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE))


def _json(labelling: Labelling, labelled: LabelledObject) -> bytes:
    """A click file; it says which masks to expect if the threshold is the model's own."""
    session, volume = labelled.session, labelling.volume
    content: dict[str, Any] = {
        "object": {"number": labelled.number, "name": labelled.name},
        "threshold": threshold_of(labelled),
    }
    if threshold_of(labelled) == labelling.model.spec.threshold:
        content |= recording_content(record(session), volume)
    else:
        content |= click_content(session.clicks, volume)
    if not labelling.from_nifti:
        content |= _in_mm(session.clicks, volume)
    return (json.dumps(content, indent=1) + "\n").encode()


def _in_mm(clicks: Clicks, volume: Volume) -> dict[str, Any]:
    """What a click file says of clicks on a scan that others may store in another order."""
    return {
        "space": "ras",
        "clicks": [
            {
                "position": [round(mm, 4) for mm in volume.ras_of_zyx(click.zyx)],
                "positive": click.positive,
            }
            for click in clicks
        ],
    }


def _plain(name: str) -> str:
    """A name of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._") or "scan"
