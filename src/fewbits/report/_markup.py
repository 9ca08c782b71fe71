"""HTML that is escaped unless it was made here."""

from __future__ import annotations

import html


class Markup(str):
    """A piece of HTML. Plain strings among an element's children are text and get escaped; these do not."""

    __slots__ = ()


_EMPTY = ("img", "meta")


def el(tag: str, *children: str, **attributes: str) -> Markup:
    """An element; ``http_equiv`` stands for ``http-equiv``, ``class_`` for ``class``. Values are escaped."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_visible(value))}"' for name, value in attributes.items()
    )
    if tag in _EMPTY:
        return Markup(f"<{tag}{named}>")
    return Markup(f"<{tag}{named}>{joined(*children)}</{tag}>")


def joined(*children: str) -> Markup:
    """Children one after the other, text escaped."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(_visible(c)) for c in children))


def _visible(text: str) -> str:
    """Text without controls and lone surrogates, which HTML or UTF-8 cannot hold or which reorder a page."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
