"""Write the tables of the documents from the committed results.

A table stands between `<!-- NAME -->` and `<!-- end -->`. With --check nothing is written, and the
exit code says whether the documents agree with the results.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "training.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "engines.md",
    ROOT / "clickseg_infer" / "models" / "light.md",
)
PATCH = "torch and MONAI, back to the patch's box"
WHOLE = "torch and MONAI, back to the whole scan"
KEPT, EDT, BFS = "clickseg", "scipy distance transform", "f-BRS breadth first, stopped"
MONAI_1, MONAI_2, NNUNET = "MONAI, 1 channel", "MONAI, 2 channels", "nnU-Net, 2 channels"
SHOWN = (1, 2, 3, 5, 10)
CPUS = {"": "float32", "bfloat16": "bfloat16"}
"""The folders of results that depend on the CPU, and what its networks are computed in."""
MEASURES = {
    "Dice": "mean_dice",
    "surface Dice at 2 mm": "mean_surface_dice",
    "Dice of region growing": "region_growing_dice",
}


def accuracy() -> str:
    result = loaded("accuracy")
    lines = ["| after clicks | " + " | ".join(map(str, SHOWN)) + " | objects |"]
    lines.append("|---" * (len(SHOWN) + 2) + "|")
    for group, found in result["groups"].items():
        lines.append(f"| **{group}** |" + " |" * len(SHOWN) + f" {found['objects']} |")
        for name, key in MEASURES.items():
            if not found[key]:
                continue  # not measured for this group
            values = " | ".join(f"{found[key][n - 1]:.2f}" for n in SHOWN)
            lines.append(f"| {name} | {values} | |")
            if name == "Dice" and found["aim"]:
                aims = (found["aim"].get(str(n)) for n in SHOWN)
                shown = "".join(" |" if aim is None else f" {aim:.2f} |" for aim in aims)
                lines.append(f"| Dice that was aimed at |{shown} |")
    return "\n".join(lines)


def kinds() -> str:
    lines = ["| Dice after clicks | " + " | ".join(map(str, SHOWN)) + " | objects |"]
    lines.append("|---" * (len(SHOWN) + 2) + "|")
    for group, found in loaded("accuracy")["groups"].items():
        lines.append(f"| **{group}** |" + " |" * (len(SHOWN) + 1))
        for name, kind in found["by_kind"].items():
            values = " | ".join(f"{kind['mean_dice'][n - 1]:.2f}" for n in SHOWN)
            lines.append(f"| {name} | {values} | {kind['objects']} |")
    return "\n".join(lines)


def ablation() -> str:
    result = loaded("ablation")
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
    return "\n\n".join(engines_on(cpu) for cpu in cpus("engines"))


def engines_on(cpu: str) -> str:
    result = loaded("engines", cpu)
    lines = ["| engine | ms for one 96^3 patch | ratio |", "|---|---|---|"]
    for name, row in sorted(result["engines"].items(), key=lambda item: item[1]["median_ms"]):
        lines.append(f"| {name} | {row['median_ms']:.0f} | {row['ratio']:.2f} |")
    drawn = f"{result['click_channels_ms']} ms for {result['clicks']} clicks"
    lines += ["", f"On {on(result['machine'])}; drawing the patch's click channels: {drawn}."]
    return "\n".join(lines)


def precision() -> str:
    """What 16 and 8 bits cost on validation cases, and how fast OpenVINO is in each."""
    return "\n\n".join(precision_on(loaded("precision", cpu)) for cpu in cpus("precision"))


def precision_on(result: dict[str, Any]) -> str:
    lines = [
        "| graph | mean Dice | float32's | file | checked by |",
        "|---" * 5 + "|",
    ]
    for name, row in result["precisions"].items():
        lines.append(
            f"| {name} | {row['dice']:.4f} | {row['dice_float32']:.4f} | {row['mib']} MiB "
            f"| {row['engine']} |"
        )
    first = next(iter(result["precisions"].values()))
    lines += ["", f"{first['objects']} objects, {first['clicks']} clicks each."]
    speeds = ", ".join(
        f"{name} {row['median_ms']:.0f} ms" for name, row in result["openvino"].items()
    )
    lines[-1] += f" One 96^3 patch by OpenVINO on {on(result['machine'])}: {speeds}."
    return "\n".join(lines)


def refinement() -> str:
    """Where clicks contradict each other, and on validation cases: f-BRS and its peers."""
    measured = cpus("refinement")
    results = [loaded("refinement", cpu) for cpu in measured]
    heads = " | ".join(f"ms a tuned answer in {CPUS[cpu]}, p50 | p95" for cpu in measured)
    lines = [
        "| | answers | that obey all clicks | tuned | and a ball besides | changed far away "
        f"| {heads} |",
        "|---" * (6 + 2 * len(measured)) + "|",
    ]
    for method, row in results[-1]["sessions"].items():
        times = [r["sessions"].get(method, {}).get("refine_ms", {}) for r in results]
        spent = " | ".join(f"{ms[p]:.0f}" if ms else "" for ms in times for p in ("p50", "p95"))
        lines.append(
            f"| {method}, {row['sessions']} sessions | {row['clicks']} "
            f"| {row['answers_that_obey_all_clicks']} | {row['answers_tuned']} "
            f"| {row['tuned_and_corrected']} | {row['answers_with_far_changes']} | {spent} |"
        )
    methods = results[-1]["validation"]
    lines += ["", "| clicks to Dice 0.90, at most 10 | " + " | ".join(methods) + " |"]
    lines.append("|---" * (len(methods) + 1) + "|")
    for group in next(iter(methods.values())):
        found = [rows[group] for rows in methods.values()]
        lines.append(f"| {group} | " + " | ".join(str(f["clicks_to_0.90"]) for f in found) + " |")
        for cpu, result in zip(measured, results, strict=True):
            rows = [result["validation"].get(method, {}).get(group) for method in methods]
            times = " | ".join(f"{row['median_click_ms']:.0f}" if row else "" for row in rows)
            lines.append(f"| median ms a click in {CPUS[cpu]} | {times} |")
    return "\n".join([*lines, "", measured_on("refinement", measured)])


def gpu() -> str:
    """The network and a click on a card, as far as one was at hand."""
    if not (HERE / "results" / "gpu.json").exists():
        return "Not measured yet: `benchmarks/gpu.py` measures it where there is a card."
    result = loaded("gpu")
    lines = [f"| {result['card']} | network, ms | click, p50 | click, p95 | memory |"]
    lines.append("|---" * 5 + "|")
    for name, row in result["engines"].items():
        lines.append(
            f"| {name} | {row['network']['median_ms']} | {row['click_ms']['p50']} "
            f"| {row['click_ms']['p95']} | {row['memory_mb']} MiB |"
        )
    return "\n".join(lines)


def loaded(name: str, cpu: str = "") -> Any:
    return json.loads(path_of(name, cpu).read_text())


def path_of(name: str, cpu: str = "") -> Path:
    return HERE / "results" / cpu / f"{name}.json"


def cpus(*names: str) -> list[str]:
    """Of CPUS, those of which there are results of all these names."""
    return [cpu for cpu in CPUS if all(path_of(name, cpu).exists() for name in names)]


def ratio(part: dict[str, Any], ours: str, theirs: str) -> float:
    return part[ours]["ratio"][theirs]


def latency() -> str:
    """What was asked of every step beside its peers, and what was measured."""
    names = ("clicking", "click_maps", "stitching", "resampling", "files", "start")
    measured = {cpu: latency_on(cpu) for cpu in cpus(*names)}
    heads = [f"a CPU that computes in {CPUS[cpu]}" for cpu in measured]
    lines = ["| what | asked | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for rows in zip(*measured.values(), strict=True):
        what, _, asked = rows[0]
        lines.append(f"| {what} | {asked} | " + " | ".join(str(v) for _, v, _ in rows) + " |")
    return "\n".join([*lines, "", measured_on("clicking", list(measured))])


def measured_on(name: str, measured: list[str]) -> str:
    """A sentence on the machines of a result."""
    machines = (on(loaded(name, cpu)["machine"]) for cpu in measured)
    return f"Measured on {', and on '.join(machines)}."


def latency_on(cpu: str) -> list[tuple[str, Any, str]]:
    """What, what was measured on such a CPU, and what was asked."""
    clicking, maps, stitching = (loaded(n, cpu) for n in ("clicking", "click_maps", "stitching"))
    resampling, files, start = (loaded(n, cpu) for n in ("resampling", "files", "start"))
    click, drawn, blended = (
        part["contest" if part is clicking["click"] else "contenders"]
        for part in (clicking["click"], maps, stitching)
    )
    stages, one = clicking["click"]["stages_ms"], "clickseg"
    back = resampling["from_network"]
    return [
        ("click to mask, one 96^3 patch", f"{click[one]['median_ms']:.0f} ms", ""),
        ("beside torch and MONAI, back to the patch's box", ratio(click, one, PATCH), "0.20"),
        ("beside torch and MONAI, back to the whole scan", ratio(click, one, WHOLE), "0.20"),
        ("drawing clicks and cues", f"{stages['maps']:.1f} ms", "15 ms"),
        ("all but network, clicks and cues", f"{clicking['click']['rest_ms']:.1f} ms", "10 ms"),
        ("DeepEdit's way takes times as long", f"{clicking['click']['deepedit_ratio']}", "200"),
        ("20 clicks in 600 slices beside 100, p95", clicking["sessions"]["p95_ratio"], "1.15"),
        ("drawing 5 clicks in 160^3, beside scipy's EDT", ratio(drawn, KEPT, EDT), "0.002"),
        ("beside f-BRS's search, stopped at the radius", ratio(drawn, KEPT, BFS), "0.02"),
        ("stitching 200 patches, beside MONAI, 1 channel", ratio(blended, one, MONAI_1), "1.0"),
        ("beside MONAI, 2 channels", ratio(blended, one, MONAI_2), "0.45"),
        ("beside nnU-Net", ratio(blended, one, NNUNET), "0.25"),
        ("memory, in output volumes", blended[one]["memory_in_outputs"], "1.25"),
        ("to the network's grid, beside torch", of_torch(resampling["to_network"]), "0.10"),
        ("mask back, an eighth of the scan, beside torch", of_torch(back), "0.07"),
        ("mask back, one organ", of_torch(resampling["from_network_one_organ"]), "0.07"),
        ("loading .nii.gz, beside nibabel", ratio(files["load"], one, "nibabel dataobj"), "0.55"),
        ("saving the mask, beside nibabel", ratio(files["save"], one, "nibabel"), "0.10"),
        (
            "process start to first mask, beside torch and MONAI",
            ratio(start["first_mask"], "clickseg segment", "torch, monai, nibabel"),
            "0.30",
        ),
        ("resident memory, in scans", start["memory"]["resident_to_scan"], "3"),
    ]


def stages() -> str:
    """Where the milliseconds of a click go."""
    results = {cpu: loaded("clicking", cpu) for cpu in cpus("clicking")}
    spent = [found["click"]["stages_ms"] for found in results.values()]
    lines = ["| stage, median ms | " + " | ".join(CPUS[cpu] for cpu in results) + " |"]
    lines.append("|---" * (1 + len(results)) + "|")
    names = sorted(set().union(*spent))
    for name in sorted(names, key=lambda name: -max(ms.get(name, 0) for ms in spent)):
        cells = (f"{ms[name]:.1f}" if name in ms else "" for ms in spent)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    totals = (f["click"]["contest"]["clickseg"]["median_ms"] for f in results.values())
    lines += ["| **click to mask** | " + " | ".join(f"**{t:.1f}**" for t in totals) + " |", ""]
    for cpu, found in results.items():
        floor = found["floor"]
        lines.append(
            f"The network's {floor['network_gflop']:.0f} GFLOP would take "
            f"{floor['network_ms']:.0f} ms at {floor['product_gflop_per_s']} GFLOP/s, the speed of "
            f"a large {CPUS[cpu]} product there."
        )
    return "\n".join(lines)


def floors() -> str:
    """Beside what moving the same bytes takes, and where a session's memory goes."""
    cpu = cpus("click_maps", "stitching", "resampling", "start")[0]
    maps, stitching = loaded("click_maps", cpu), loaded("stitching", cpu)
    resampling, start = loaded("resampling", cpu), loaded("start", cpu)
    to, back = resampling["to_network"], resampling["from_network"]
    patch = resampling["one_patch_two_windows"]
    rows = [
        ("drawing 5 clicks", maps, "writing the voxels"),
        ("stitching 200 patches", stitching, "adding without weights"),
        ("a patch to the network's grid, twice windowed", patch, "copying its voxels"),
        ("a scan to the network's grid", to, "copying the voxels"),
        ("a mask back, all over the scan", back, "writing as many new bytes"),
    ]
    lines = ["| what | ours | moving the same bytes | ratio |", "|---|---|---|---|"]
    for what, part, floor in rows:
        ours, least = part["contenders"]["clickseg"], part["contenders"][floor]["median_ms"]
        times = ours["ratio"][floor]
        lines.append(f"| {what} | {ours['median_ms']} ms | {floor}: {least} ms | {times} |")
    parts = ", ".join(f"{name} {mb:.0f}" for name, mb in start["memory"]["parts_mb"].items())
    lines += ["", f"Resident memory of a session, in MiB as it comes: {parts}."]
    return "\n".join([*lines, f"Measured on {on(start['machine'])}."])


def of_torch(part: dict[str, Any]) -> float:
    return ratio(part["contenders"], "clickseg", "torch")


def on(machine: dict[str, Any]) -> str:
    return f"{machine['cores']} cores of {machine['processor']}"


def filled(text: str) -> str:
    tables = (
        accuracy,
        kinds,
        ablation,
        engines,
        latency,
        stages,
        floors,
        precision,
        refinement,
        gpu,
    )
    for make in tables:
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
