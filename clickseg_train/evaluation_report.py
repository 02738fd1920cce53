"""An evaluation as files: one CSV, a curve of Dice against clicks, and the worst cases drawn."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.model import Model
from clickseg_infer.predicting import predict
from clickseg_infer.volume import Volume
from clickseg_train.cases import Case, load_case
from clickseg_train.evaluate import Evaluation, ObjectResult

CSV, CURVE, WORST = "clicks.csv", "dice_by_click.png", "worst.png"
_WORST = 4
_WINDOW_HU = (-160, 240)


def write_report(
    out: Path,
    evaluation: Evaluation,
    model: Model,
    cases: Mapping[str, Case],
    names: Mapping[int, str],
) -> None:
    """Write `clicks.csv`, `dice_by_click.png` and `worst.png` into a folder.

    Args:
        out: the folder.
        evaluation: what to report.
        model: with which the worst cases are answered again.
        cases: by the path of their image.
        names: of label values.

    Raises:
        FileError: the folder cannot be written to.
    """
    write_whole(out / CSV, table(evaluation, names).encode())
    with matplotlib.rc_context({"font.size": 9}):
        write_whole(out / CURVE, _png(_curve(evaluation)))
        worst = sorted(evaluation.cases, key=lambda case: case.dice[-1])[:_WORST]
        write_whole(out / WORST, _png(_drawn(worst, model, cases, names)))


def table(evaluation: Evaluation, names: Mapping[int, str]) -> str:
    """One CSV line for each object and click; a measure that was not asked for stays empty."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    measures = ("dice", "surface_dice", "volume_error", "baseline_dice", "click_ms")
    what = ("image", "label_value", "label", "click", "positive", "z", "y", "x")
    writer.writerow([*what, *measures])
    for case in evaluation.cases:
        for n, click in enumerate(case.clicks):
            values = [getattr(case, measure) for measure in measures]
            row = [f"{found[n]:.4f}" if found else "" for found in values]
            who = [case.image, case.label_value, names.get(case.label_value, "")]
            writer.writerow([*who, n + 1, int(click.positive), *click.zyx, *row])
    return lines.getvalue()


def _curve(evaluation: Evaluation) -> Figure:
    figure = Figure((5, 3.5), layout="constrained")
    axes = figure.subplots()
    clicks = np.arange(1, len(evaluation.mean_dice) + 1)
    for case in evaluation.cases:
        axes.plot(clicks, case.dice, color="0.8", linewidth=0.7)
    axes.plot(clicks, evaluation.mean_dice, color="C0", marker="o", label="mean")
    if evaluation.cases[0].baseline_dice:
        mean = evaluation.mean("baseline_dice")
        axes.plot(clicks, mean, color="C1", marker="s", label="region growing")
    axes.set(xlabel="clicks", ylabel="Dice", ylim=(0, 1), xticks=clicks)
    axes.set_title(f"{len(evaluation.cases)} objects")
    axes.legend(loc="lower right")
    return figure


def _drawn(
    worst: list[ObjectResult], model: Model, cases: Mapping[str, Case], names: Mapping[int, str]
) -> Figure:
    """The slice of each with the largest error, or the largest: truth green, answer orange."""
    figure = Figure((3 * len(worst), 3.4), layout="constrained")
    for axes, result in zip(figure.subplots(1, len(worst), squeeze=False)[0], worst, strict=True):
        loaded = load_case(cases[result.image])
        truth = loaded.label == result.label_value
        answer = predict(model, loaded.volume, result.clicks).mask > 0
        shown = truth if np.array_equal(truth, answer) else truth != answer
        z = int(shown.sum(axis=(1, 2)).argmax())
        _slice(axes, loaded.volume, z, truth[z], answer[z])
        name = names.get(result.label_value, f"label {result.label_value}")
        axes.set_title(f"{Path(result.image).name}\n{name}: {result.dice[-1]:.2f}", fontsize=8)
    return figure


def _slice(
    axes: Any, volume: Volume, z: int, truth: NDArray[np.bool_], answer: NDArray[np.bool_]
) -> None:
    low, high = _WINDOW_HU
    _, sy, sx = volume.spacing_mm
    axes.imshow(volume.voxels[z], cmap="gray", vmin=low, vmax=high, origin="lower", aspect=sy / sx)
    for mask, colour in ((truth, "lime"), (answer, "orange")):
        if mask.any():
            axes.contour(mask, levels=[0.5], colors=colour, linewidths=1)
    rows, columns = np.nonzero(truth | answer)
    margin = 15
    axes.set_xlim(columns.min() - margin, columns.max() + margin)
    axes.set_ylim(rows.min() - margin, rows.max() + margin)
    axes.axis("off")


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()
