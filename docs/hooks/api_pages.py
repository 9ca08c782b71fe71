"""The API pages: one for each package of fewbits that says which of its names are public (``__all__``).

Sources are read and not run, so that no room need be installed, or named here. A name that two rooms offer is described
in the one that it lives in; the other links to it.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def public(module: Path) -> list[str]:
    """The names in a module's ``__all__``, none if it has none."""
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    return []


def rooms(source: Path) -> dict[str, list[str]]:
    """Dotted names of the packages with public names, and these names, the package itself first."""
    found = {}
    for init in sorted(source.glob("fewbits/**/__init__.py"), key=lambda path: path.parent.parts):
        room = ".".join(init.parent.relative_to(source).parts)
        if names := public(init):
            found[room] = names
    return found


def pages(source: Path) -> dict[str, str]:
    """Paths in the site and their Markdown, to be read by mkdocstrings."""
    known = rooms(source)
    return {f"api/{room}.md": page(room, names, source, known) for room, names in known.items()}


def page(room: str, names: list[str], source: Path, known: dict[str, list[str]]) -> str:
    """What a room is for, then each of its names."""
    text = f"# {room}\n\n::: {room}\n    options: {{show_root_heading: false, heading_level: 2, members: false}}\n"
    elsewhere = []
    for name in sorted(names, key=str.lower):
        if (owner := owner_of(room, name, source, known)) == room:
            text += f"\n::: {room}.{name}\n    options: {{heading_level: 2}}\n"
        else:
            elsewhere.append(f"- [`{name}`]({owner}.md#{owner}.{name})\n")
    return text + ("\n## Described elsewhere\n\n" + "".join(elsewhere) if elsewhere else "")


def owner_of(room: str, name: str, source: Path, known: dict[str, list[str]]) -> str:
    """The innermost room around a name's definition that offers it, too; else the room itself."""
    home = definition(room, name, source)
    around = [other for other in known if name in known[other] and f"{home}.".startswith(f"{other}.")]
    return max(around, key=len, default=room)


def definition(module: str, name: str, source: Path) -> str:
    """The module that a name comes from, through all the modules that import it from one another."""
    path = source.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("fewbits"):
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module:
                    return definition(node.module, alias.name, source)
    return module
