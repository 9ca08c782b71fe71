"""Paste real output into README.md and docs/figures.md: the demo's report, the tables of figures, and the pictures.

python -m benchmarks.figures [--demo out/demo]
"""

import argparse
import re
from pathlib import Path

from benchmarks import results, tables
from benchmarks.unit import Row
from fewbits import job as jobs
from fewbits import recipe as recipes
from fewbits.files import write
from fewbits.job import folder as outputs
from fewbits.report import plots
from fewbits.report.table import text

ROOT = Path(__file__).parent.parent
README = "best"  # the section that goes to the README, as `figures`; the others go to docs/figures.md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="folder of a finished `make demo`, to show its report, too")
    options = parser.parse_args()
    if options.demo:
        demo(options.demo)
    for section, descriptions in tables.load().items():
        path, mark = (ROOT / "README.md", "figures") if section == README else (ROOT / "docs" / "figures.md", section)
        path.write_text(pasted(path.read_text(), mark, drawn(descriptions)))


def drawn(descriptions: list[Row]) -> str:
    """All tables and pictures of a section, in Markdown."""
    parts = []
    for description in descriptions:
        if "picture" in description:
            parts.append(picture(description["picture"]))
        else:
            parts += [text for text, _ in tables.tables(description)]
    return "\n\n".join(parts)


def pasted(page: str, mark: str, content: str) -> str:
    """The page with everything between two marks replaced."""
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    assert pattern.search(page), f"the page lacks the mark {mark}"
    return pattern.sub(lambda m: f"{m[1]}{content.strip()}\n{m[2]}", page)


def picture(name: str) -> str:
    """Draws accuracy over bytes of a result file."""
    found = results.rows_in(name, results.FOLDER)
    base = sum(row["baseline_accuracy"] for row in found) / len(found)
    image = plots.figure_png(plots.accuracy_v_bytes(found, baseline=base), dpi=90)
    write(ROOT / "docs" / "pictures" / f"{name}.png", image)
    return f"![Accuracy over bytes for every method](pictures/{name}.png)"


def demo(folder: Path) -> None:
    """The demo's report and heat maps."""
    report = outputs.load_report(folder / "report.json")
    job = jobs.prepare(recipes.load("demo"), trained=folder / "float.safetensors")
    explanation = jobs.explain(job, folder / "net.few", "plus")
    write(ROOT / "docs" / "pictures" / "heatmaps.png", plots.figure_png(plots.heatmaps(explanation), dpi=72))
    readme = pasted((ROOT / "README.md").read_text(), "demo", f"```text\n{text(report)}\n```")
    (ROOT / "README.md").write_text(readme)


if __name__ == "__main__":
    main()
