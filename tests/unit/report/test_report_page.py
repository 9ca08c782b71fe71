"""The page: complete, self-contained, and safe with hostile names."""

from __future__ import annotations

import base64
import dataclasses
import os
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fewbits.errors import FileError, MissingExtraError
from fewbits.report import Explanation, Report, page, text, write_page
from fewbits.report._markup import el

HOSTILE = "\"><script>alert('1')</script><img src=x onerror=alert(2)>&amp;\x00\ud800"
VOID = ("meta", "img")


class Reader(HTMLParser):
    """Elements, text and attributes of a page; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html(report: Report, explanation: Explanation) -> str:
    row = {"model": "tiny", "data": "noise", "method": "ecq", "seed": 0, "accuracy": 88.5, "bytes": 260}
    return page(report, explanation, [row])


def test_it_has_the_reports_figures(html: str, report: Report) -> None:
    said = "\n".join(Reader(html).words)
    for expected in ("250 B", "250 bytes", "91.25 %", "90.50 %", "identical", "0.75 points lost", "12.3 s"):
        assert expected in said
    for row in report.tensors:
        assert row.name in said
        assert f"{row.entropy:.3f}" in said
    for name, size in report.others.items():
        assert name in said
        assert f"{size:,}" in said
    assert "method: ecqx\nbits: 4" in said
    assert "tiny on noise, ecqx, seed 0" in said


def test_it_has_the_explanations_figures(html: str, explanation: Explanation) -> None:
    said = "\n".join(Reader(html).words)
    for layer in explanation.layers:
        assert f"{layer.spearman:+.3f}" in said
        assert f"{100 * (layer.relevance_kept or 0):.1f}" in said
    assert f"{100 * explanation.agreement:.1f} %" in said


def test_it_needs_nothing_else(html: str) -> None:
    found = Reader(html)
    assert {tag for tag, _ in found.elements}.isdisjoint({"script", "link", "iframe", "object", "form", "a"})
    assert all(a["src"].startswith("data:image/png;base64,") for a in found.all("img"))
    assert "url(" not in html
    assert "@import" not in html
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    (policy,) = [m["content"] for m in found.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_every_picture_is_a_png_with_words(html: str) -> None:
    images = Reader(html).all("img")
    assert len(images) == 8  # layers, history, kept, two scatters, heat maps, flipping, results
    for image in images:
        assert base64.b64decode(image["src"].partition(",")[2], validate=True).startswith(b"\x89PNG")
        assert len(image["alt"]) > 30


def test_headings_and_language(html: str) -> None:
    found = Reader(html)
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("h1")) == 1
    assert len(found.all("h2")) == 9
    assert all(attributes["scope"] in ("col", "row") for attributes in found.all("th"))


def test_hostile_names_are_text(report: Report, explanation: Explanation) -> None:
    tensor = dataclasses.replace(report.tensors[0], name=HOSTILE)
    layer = dataclasses.replace(explanation.layers[0], name=HOSTILE)
    heat = dataclasses.replace(explanation.maps[0], target=HOSTILE)
    changed = report.updated(
        model=HOSTILE, data=HOSTILE, method=HOSTILE, split=HOSTILE, tensors=(tensor,),
        recipe={"a": HOSTILE.rstrip("\ud800")}, versions={HOSTILE: HOSTILE}, others={HOSTILE: 5},
    )  # fmt: skip
    said = dataclasses.replace(explanation, layers=(layer,), maps=(heat,), rules=HOSTILE)
    row = {"model": HOSTILE, "data": HOSTILE, "method": HOSTILE, "accuracy": 1, "bytes": 1, HOSTILE: HOSTILE}
    html = page(changed, said, [row, {**row, HOSTILE: "b"}])
    found = Reader(html)
    assert {tag for tag, _ in found.elements}.isdisjoint({"script"})
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert all(a["src"].startswith("data:image/png") for a in found.all("img"))
    assert "<script>alert('1')</script>" in "".join(found.words)
    assert "\x00" not in html
    html.encode("utf-8")


def test_a_failed_check_is_seen(report: Report) -> None:
    said = "\n".join(Reader(page(report.updated(identical=False, met=False))).words)
    assert "NOT identical" in said
    assert "NOT met" in said


def test_a_bare_report_has_a_page(report: Report) -> None:
    bare = report.updated(
        history=(), recipe={}, versions={}, others={}, accuracy_before=None, accuracy_after=None, met=None
    )
    found = Reader(page(bare))
    assert len(found.all("img")) == 1
    assert "not evaluated" in "\n".join(found.words)


def test_reports_survive_json(report: Report) -> None:
    back = Report.from_json(report.to_json())
    assert back == report
    assert text(back) == text(report)


def test_without_matplotlib_there_is_a_sentence(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="needs matplotlib"):
        page(report)


def test_writing_replaces_the_old_page_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "page.html"
    write_page(target, "<p>ä</p>\n")
    assert target.read_bytes() == "<p>ä</p>\n".encode()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(FileError, match=r"cannot write .*page\.html': No space left on device"):
        write_page(target, "new")
    assert target.read_bytes() == "<p>ä</p>\n".encode()
    assert list(tmp_path.iterdir()) == [target]


def test_writing_into_no_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write"):
        write_page(tmp_path / "absent" / "page.html", "x")


def test_elements_escape_what_they_are_given() -> None:
    assert el("p", "<b>", el("b", "&"), title='"') == '<p title="&quot;">&lt;b&gt;<b>&amp;</b></p>'
