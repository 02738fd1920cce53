"""Write the tables of the documents from the committed results.

A table stands between `<!-- NAME -->` and `<!-- end -->`. With --check nothing is written, and the
exit code says whether the documents agree with the results.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "training.md",
    ROOT / "clickseg_infer" / "models" / "light.md",
)
SHOWN = (1, 2, 3, 5, 10)
MEASURES = {
    "Dice": "mean_dice",
    "surface Dice at 2 mm": "mean_surface_dice",
    "Dice of region growing": "region_growing_dice",
}


def accuracy() -> str:
    result = json.loads((HERE / "results" / "accuracy.json").read_text())
    lines = ["| after clicks | " + " | ".join(map(str, SHOWN)) + " | objects |"]
    lines.append("|---" * (len(SHOWN) + 2) + "|")
    for group, found in result["groups"].items():
        lines.append(f"| **{group}** |" + " |" * len(SHOWN) + f" {found['objects']} |")
        for name, key in MEASURES.items():
            if not found[key]:
                continue  # not measured for this group
            values = " | ".join(f"{found[key][n - 1]:.2f}" for n in SHOWN)
            lines.append(f"| {name} | {values} | |")
    return "\n".join(lines)


def ablation() -> str:
    result = json.loads((HERE / "results" / "ablation.json").read_text())
    lines = [
        f"| {result['steps']} steps | training, click 1 | 3 | 5 | validation, click 1 | 3 | 5 |",
        "|---" * 7 + "|",
    ]
    for name, row in result["variants"].items():
        values = [row["training_dice"][str(n)] for n in (1, 3, 5)]
        values += [row["validation_dice"][n - 1] for n in (1, 3, 5)]
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join(lines)


def engines() -> str:
    result = json.loads((HERE / "results" / "engines.json").read_text())
    lines = ["| engine | ms for one 96^3 patch | ratio |", "|---|---|---|"]
    for name, row in sorted(result["engines"].items(), key=lambda item: item[1]["median_ms"]):
        lines.append(f"| {name} | {row['median_ms']:.0f} | {row['ratio']:.2f} |")
    machine = result["machine"]
    drawn = f"Drawing the patch's click channels, cues included: {result['click_channels_ms']} ms"
    lines += ["", f"{drawn} for {result['clicks']} clicks."]
    lines += ["", f"Measured on {machine['cores']} cores of {machine['processor']}."]
    return "\n".join(lines)


def filled(text: str) -> str:
    for make in (accuracy, ablation, engines):
        name = make.__name__
        pattern = rf"(<!-- {name} -->\n).*?\n?(<!-- end -->)"
        text = re.sub(
            pattern, lambda m, make=make: f"{m[1]}{make()}\n{m[2]}", text, flags=re.DOTALL
        )
    return text


def main() -> None:
    stale = [path for path in DOCUMENTS if filled(path.read_text()) != path.read_text()]
    if "--check" in sys.argv:
        sys.exit("\n".join(f"{path.name} differs from the results" for path in stale) or 0)
    for path in stale:
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
