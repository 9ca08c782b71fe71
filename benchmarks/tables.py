"""Tables in Markdown from rows of result files, each as tables.yaml describes it.

A description: ``result`` (files, or ``given`` rows), ``where`` (a condition on rows as pandas reads it), ``derive``
(functions of :mod:`benchmarks.derived`), ``eval`` (new columns from old ones), ``names`` and ``fill`` (of values),
``sort`` (of columns, or of rows where there are none), ``split`` (a table for each value of these columns), ``title``,
``rows`` (label columns: rows that agree in them make one line), ``columns`` (a label: a block of cells for each) and
``cells``. Labels, cells and titles are format strings over columns. ``{accuracy}`` is mean and range, ``{bytes:,.0f}``
a mean; other figures are named before the format: ``{score:median:.3f}``, see :class:`Values`.
"""

import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks import derived, results
from benchmarks.unit import EARLIER, Row

HERE = Path(__file__).parent
Table = tuple[str, set[tuple[str, str, int]]]  # Markdown, and the rows in it: file, list in that, place in the list
NONE = "-"


def load() -> dict[str, list[Row]]:
    """Descriptions of all tables, by the section of a page that they belong to."""
    found: dict[str, list[Row]] = yaml.safe_load((HERE / "tables.yaml").read_text(encoding="utf-8"))
    return found


def frame_of(name: str, folder: Path = results.FOLDER) -> pd.DataFrame:
    """All rows of a result file, in whatever list of it; nested values by ``outer_inner``, or as text."""
    path = folder / f"{name}.json"
    whole = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = []
    for part, rows in whole.items():
        for number, row in enumerate(rows if isinstance(rows, list) else ()):
            flat: Row = {"result": name, "name": path.stem, "part": part, "id": (name, part, number)}
            for key, value in row.items():
                if isinstance(value, dict) and key in ("small", "fast", "nncodec"):
                    flat |= {f"{key}_{inner}": v for inner, v in value.items()}
                elif isinstance(value, dict) and key != "recipe":
                    flat[key] = ", ".join(f"{k} {v}" for k, v in value.items())
                elif key != "recipe":
                    flat[EARLIER.get(key, key).replace(".", "_")] = value
            found.append(flat)
    return pd.DataFrame(found)


def tables(description: Row, folder: Path = results.FOLDER) -> Iterator[Table]:
    """The tables of a description; none if there are no rows for it yet."""
    told = description.get("result", [])
    names = [told] if isinstance(told, str) else told
    parts = [frame_of(name, folder) for name in names] + [pd.DataFrame(description.get("given", []))]
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True) if any(map(len, parts)) else parts[-1]
    frame = frame if "id" in frame else frame.assign(id=None)
    for column, value in description.get("fill", {}).items():
        frame = frame.assign(**{column: frame[column].fillna(value) if column in frame else value})
    if "where" in description and len(frame):
        frame = frame.query(description["where"], engine="python")
    if not len(frame):
        return
    for name in description.get("derive", ()):
        frame = getattr(derived, name)(frame)
    for column, expression in description.get("eval", {}).items():
        frame = frame.assign(**{column: frame.eval(expression, engine="python")})
    for column, named in description.get("names", {}).items():
        frame = frame.assign(**{column: [named.get(value, value) for value in frame[column]]})
    for _, part in frame.groupby(description.get("split", lambda _: 0), sort=False, dropna=False):
        yield _table(description, part)


def _table(description: Row, frame: pd.DataFrame) -> Table:
    labels, cells, column = description["rows"], description["cells"], description.get("columns", "")
    ordered = frame
    if key := description.get("sort"):
        ordered = frame.sort_values(key.lstrip("-"), ascending=key[0] != "-", kind="stable")
        frame = frame if column else ordered
    order = list(dict.fromkeys(_filled(column, ordered.iloc[[i]]) for i in range(len(frame))))
    blocks = [_filled(column, frame.iloc[[i]]) for i in range(len(frame))]
    lines = [tuple(_filled(label, frame.iloc[[i]]) for label in labels.values()) for i in range(len(frame))]
    titles = [*labels]
    for block in order:
        mine = frame[[b == block for b in blocks]]
        titles += [_filled(title.replace("{column}", block), mine) for title in cells]
    body, shown = [], set[Any]()
    for line in dict.fromkeys(lines):
        here = [one == line for one in lines]
        body.append([*line])
        for block in order:
            mine = frame[[h and b == block for h, b in zip(here, blocks, strict=True)]]
            body[-1] += [_filled(cell, mine) for cell in cells.values()]
            shown |= set(mine["id"])
    text = "\n".join("| " + " | ".join(line) + " |" for line in [titles, ["---"] * len(titles), *body])
    return f"{listed(_filled(description['title'], frame))}\n\n{text}", shown - {None}


LONG = 40
"""Words of a title that fill more than one breath."""


def listed(title: str) -> str:
    """A long title, with the command and what goes for all rows as a list.

    A title is ``**What it is** more (`command`; this; that). And this; and that:``.
    """
    brackets = ((begin, begin + _closing(title[begin:])) for begin, letter in enumerate(title) if letter == "(")
    begin, end = next(
        (pair for pair in brackets if "; " in title[slice(*pair)] or title.startswith("(`python", pair[0])), (0, 0)
    )
    if len(title.split()) <= LONG or not end:
        return title
    head, inside, rest = title[:begin].strip(), title[begin + 1 : end], title[end + 1 :].strip(" :,.")
    facts = [fact for part in (inside, rest) for fact in _facts(part)]
    return "\n".join([f"{head}:", "", *(f"- {fact}" for fact in facts)])


def _closing(text: str) -> int:
    """Where the bracket closes that a text begins with."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place
    raise ValueError(f"a bracket without an end: {text}")


def _facts(text: str) -> list[str]:
    """Parts between semicolons and between sentences, but for those in brackets."""
    found, depth, begin = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        ends = text[place : place + 2] in ("; ", ". ") and text[place + 2 : place + 3].isupper() | (letter == ";")
        if ends and not depth:
            found.append(text[begin:place])
            begin = place + 2
    return [fact.strip() for fact in (*found, text[begin:]) if fact.strip()]


class MissingError(Exception):
    """A column, or a value in it, that the rows do not have."""


class Values:
    """What some rows have in one column, as a format string asks for it: ``how:format``.

    ``span`` (the usual one without a format): mean, and the range in brackets; ``median``: the same with the median;
    ``mid``: the median alone; ``n``: how many; ``list``: the different ones; ``min``, ``max``, ``sum``, ``mean``.
    """

    def __init__(self, values: list[Any]) -> None:
        self.values = [str(value) if isinstance(value, bool | list) else value for value in values]

    def __format__(self, spec: str) -> str:
        if not self.values:
            raise MissingError
        how, _, plain = spec.rpartition(":")
        if spec in ("n", "list", "span", "median", "mid", "min", "max", "sum"):
            how, plain = spec, ""
        if how == "n":
            return str(len(self.values))
        if how == "list" or not all(isinstance(v, int | float) for v in self.values):
            return ", ".join(dict.fromkeys(_number(v, plain) if how == "list" else str(v) for v in self.values))
        if how in ("min", "max", "sum"):
            return _number({"min": min, "max": max, "sum": sum}[how](self.values), plain)
        middle = (statistics.median if how in ("median", "mid") else statistics.mean)(self.values)
        ranged = how in ("span", "median") or not spec
        text = _number(middle, plain or ".2f")
        if ranged and len(self.values) > 1:
            text += f" ({_number(min(self.values), plain or '.2f')} to {_number(max(self.values), plain or '.2f')})"
        return text


def _number(value: Any, spec: str) -> str:
    if isinstance(value, str):
        return value
    return "never" if value == float("inf") else format(value, spec or "g")


def _filled(text: str, frame: pd.DataFrame) -> str:
    """A format string filled with columns; a dash where one of them has no value."""
    fields = {}
    for name in re.findall(r"{([^}:]+)", text):
        fields[name] = Values([v for v in frame[name] if v is not None and v == v] if name in frame else [])
    try:
        return text.format_map(fields)
    except MissingError:
        return NONE
