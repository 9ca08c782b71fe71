"""Extension of griffe: what docstrings write for Sphinx (roles, the colons before a block of code) becomes Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:py:)?(?:class|func|meth|mod|attr|data|exc|obj):`(~?)([^`]+)`")


def plain(text: str) -> str:
    """A text with each role as code, without the path where a tilde asks for that, and no doubled colons."""
    text = re.sub(r"^ *::$", "", re.sub(r"(?<=\w)::$", ":", text, flags=re.MULTILINE), flags=re.MULTILINE)
    return _ROLE.sub(lambda found: f"`{found[2].rsplit('.', 1)[-1] if found[1] else found[2]}`", text)


class Roles(griffe.Extension):
    """Applies :func:`plain` to every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
