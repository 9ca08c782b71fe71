"""The site itself: it builds without a warning, and asks no other machine for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prose import ROOT

import api_pages

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="needs pip install 'fewbits[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.glob("**/*.html"))
    assert len(pages) > 20
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?(?:https?:)?//[^>]*>""", html), page
        assert not re.findall(r"""<link[^>]*href=["']?(?:https?:)?//[^>]*>""", html), page
    for sheet in site.glob("**/*.css"):
        assert not re.findall(r"url\([\"']?https?:|@import", sheet.read_text(encoding="utf-8")), sheet


def test_every_public_name_has_its_place(site: Path) -> None:
    for path, text in api_pages.pages(ROOT / "src").items():
        html = (site / f"{path.removesuffix('.md')}.html").read_text(encoding="utf-8")
        for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)[1:]:
            assert f'id="{name}"' in html, name


def test_the_pages_that_are_made_are_there(site: Path) -> None:
    for name, word in {
        "index.html": "make demo", "recipe.html": "max_drop", "changelog.html": "Keep a Changelog",
        "api/fewbits.pipeline.html": "fewbits.pipeline.compress", "glossary.html": "zero_floor",
    }.items():  # fmt: skip
        assert word in (site / name).read_text(encoding="utf-8"), name
