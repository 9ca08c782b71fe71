"""Hook of mkdocs: the pages of the site that have no file in ``docs/``, and their places in the navigation.

The start page is the README, the changelog is the CHANGELOG, the recipe reference comes from the schema, and the API
has a page for each room. So nothing is written twice, and a room or key that is renamed is renamed here, too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import api_pages
import recipe_reference

ROOT = Path(__file__).resolve().parents[2]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the sections of the navigation whose pages are found and not listed."""
    how_to = sorted(page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs" / "how-to").glob("*.md"))
    config.nav = _filled(config.nav, {"API": list(api_pages.pages(ROOT / "src")), "How-to": how_to})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    made = {"index.md": from_root("README.md"), "changelog.md": from_root("CHANGELOG.md")}
    made |= {"recipe.md": recipe_reference.page()} | api_pages.pages(ROOT / "src")
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def from_root(name: str) -> str:
    """A page of the repository's root, with its links made relative to ``docs/``."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\]\((?:docs/|(?=CHANGELOG\.md))([^)]*)\)", lambda found: f"]({_page(found[1])})", text)


def _page(target: str) -> str:
    return "changelog.md" if target == "CHANGELOG.md" else target


def _filled(nav: Any, found: dict[str, list[str]]) -> Any:
    """The navigation with pages put behind those that a section lists, or in the place of a folder's name."""
    result = []
    for item in nav:
        if isinstance(item, dict):
            ((title, inner),) = item.items()
            if isinstance(inner, list):
                item = {title: _filled(inner, found) + found.get(title, [])}
            elif inner.endswith("/"):
                item = {title: found[title]}
        result.append(item)
    return result
