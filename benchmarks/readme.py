"""Paste real output into README.md and docs/figures.md: the demo's report, the tables of figures, and the pictures.

python benchmarks/readme.py [--demo out/demo] [--figures]
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path

from fewbits import recipe as recipes
from fewbits.codec import write
from fewbits.job import folder as outputs
from fewbits.job import job as jobs
from fewbits.report import plots
from fewbits.report.table import text
from tables import ROOT, rows_of
from tables_best import best
from tables_budget import budgets
from tables_channels import channels
from tables_coding import cifar, coder, combined, controls, levers, overhead, rates, remainder, scale, steps
from tables_int8 import int8
from tables_pruning import curvatures, pruning
from tables_reinforcement import reinforcement


def pasted(readme: str, mark: str, content: str) -> str:
    """The README with everything between two marks replaced."""
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    assert pattern.search(readme), f"README lacks the mark {mark}"
    return pattern.sub(lambda m: f"{m[1]}{content.strip()}\n{m[2]}", readme)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "out" / "demo", help="folder of a finished `make demo`")
    parser.add_argument("--figures", action="store_true", help="only the tables of figures, without the demo")
    options = parser.parse_args()
    if not options.figures:
        demo(options.demo)
    for path, sections in (("docs/figures.md", figures()), ("README.md", {"figures": [best()]})):
        page = (ROOT / path).read_text()
        for mark, tables in sections.items():
            page = pasted(page, mark, "\n\n".join(t for t in tables if t))
        (ROOT / path).write_text(page)


def demo(folder: Path) -> None:
    """The demo's report and heat maps."""
    report = outputs.load_report(folder / "report.json")
    job = jobs.prepare(recipes.load("demo"), trained=folder / "float.safetensors")
    explanation = jobs.explain(job, folder / "net.few", "plus")
    write(ROOT / "docs" / "pictures" / "heatmaps.png", plots.figure_png(plots.heatmaps(explanation), dpi=72))
    readme = pasted((ROOT / "README.md").read_text(), "demo", f"```text\n{text(report)}\n```")
    (ROOT / "README.md").write_text(readme)


def figures() -> dict[str, list[str]]:
    """Tables by the section of docs/figures.md that they belong to."""
    return {
        "trained": [cifar()],
        "relevance": [controls(), demo_picture(), scale(), combined(), levers(), steps(), overhead()],
        "coder": [coder(), rates(), remainder()],
        "pruning": [pruning()],
        "curvature": [curvatures()],
        "channels": [channels()],
        "int8": [int8()],
        "budgets": [budgets()],
        "reinforcement": [reinforcement()],
    }


def demo_picture() -> str:
    """Draws accuracy over bytes of the demo's controls."""
    found = rows_of("demo_controls")
    if not found:
        return ""
    base = statistics.mean(r["baseline_accuracy"] for r in found)
    picture = plots.figure_png(plots.accuracy_v_bytes(found, baseline=base), dpi=90)
    write(ROOT / "docs" / "pictures" / "demo_controls.png", picture)
    return "![Accuracy over bytes for every method](pictures/demo_controls.png)"


if __name__ == "__main__":
    main()
