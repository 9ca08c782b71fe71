"""Paste real output into the README: the demo's report, the tables of figures, and the pictures.

python benchmarks/readme.py [--demo out/demo] [--figures]
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path

from fewbits import job as jobs
from fewbits import recipe as recipes
from fewbits.codec import write
from fewbits.report import plots
from fewbits.report.table import text
from tables import ROOT, rows_of
from tables_coding import cifar, coder, controls, levers, overhead, rates, scale
from tables_int8 import int8
from tables_pruning import curvatures, pruning


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
    figures = tables()
    if not options.figures:
        demo(options.demo)
    readme = (ROOT / "README.md").read_text()
    (ROOT / "README.md").write_text(pasted(readme, "figures", figures))


def demo(folder: Path) -> None:
    """The demo's report and heat maps."""
    report = jobs.load_report(folder / "report.json")
    job = jobs.prepare(recipes.load("demo"), trained=folder / "float.safetensors")
    explanation = jobs.explain(job, folder / "net.few", "plus")
    write(ROOT / "docs" / "pictures" / "heatmaps.png", plots.figure_png(plots.heatmaps(explanation), dpi=72))
    readme = pasted((ROOT / "README.md").read_text(), "demo", f"```text\n{text(report)}\n```")
    (ROOT / "README.md").write_text(readme)


def tables() -> str:
    """Every table of figures, and the picture that goes with one of them."""
    figures = [cifar(), controls(), scale(), levers(), overhead(), coder(), rates(), pruning(), curvatures(), int8()]
    found = rows_of("demo_controls")
    if found:
        base = statistics.mean(r["baseline_accuracy"] for r in found)
        write(
            ROOT / "docs" / "pictures" / "demo_controls.png",
            plots.figure_png(plots.accuracy_v_bytes(found, baseline=base), dpi=90),
        )
        figures[1] += "\n\n![Accuracy over bytes for every method](docs/pictures/demo_controls.png)"
    return "\n\n".join(f for f in figures if f)


if __name__ == "__main__":
    main()
