"""Result files: rows are only ever added, whole, and what stands in a file stays as it is to the byte."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.process import alone
from benchmarks.unit import EARLIER, Row, Unit, keys_of, words
from fewbits.errors import DataError
from fewbits.files import write
from fewbits.report import provenance

FOLDER = Path(__file__).parent.parent / "results"


def rows_in(name: str, *folders: Path) -> list[Row]:
    """The rows of a result file, in each of the folders that has it."""
    paths = [folder / f"{name}.json" for folder in folders]
    return [row for path in paths if path.exists() for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]


class Known:
    """The rows there are, of some folders."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(dict.fromkeys(folders))
        self.keys: dict[str, set[str]] = {}
        self.older: dict[str, list[Row]] = {}

    def __contains__(self, unit: Unit) -> bool:
        name = unit.result
        if name not in self.keys:
            rows = rows_in(name, *self.folders)
            self.keys[name] = {key for row in rows if "key" in row for key in keys_of(row)}
            older = [{EARLIER.get(k, k): v for k, v in row.items()} for row in rows if not {"key", "source"} & set(row)]
            blank = dict.fromkeys(key for row in older for key in row)
            self.older[name] = [blank | row for row in older]
        return unit.key in self.keys[name] or any(unit.is_of(row) for row in self.older[name])


def add(name: str, rows: list[Row], folder: Path = FOLDER, command: str = "") -> None:
    """Add rows to a result file, which is made with the first ones. Other processes may do so at the same time.

    Raises:
        DataError: the file was not written as this writes it, so that its rows would change.
    """
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        if path.exists():
            text = path.read_text(encoding="utf-8")
            whole = json.loads(text)
            if json.dumps(whole, indent=1) + "\n" != text:
                raise DataError(f"{path} would change but for its new rows: write it with json.dumps(..., indent=1)")
        else:
            whole = provenance(name, command) | {"rows": []}
        whole["rows"] += rows
        write(path, (json.dumps(whole, indent=1) + "\n").encode())


def stamped(unit: Unit, rows: list[Row]) -> list[Row]:
    """The rows of a unit with what tells where they come from, so that they can be found and made again."""
    here = provenance(unit.experiment, "")
    machine = ", ".join(str(value) for value in here["machine"].values())
    origin: dict[str, Any] = {"commit": here["commit"], "machine": machine, "made_by": unit.experiment}
    origin |= {"kind": unit.kind, "options": unit.asked, "key": unit.key}
    if unit.recipe is not None:
        origin["recipe"] = words(unit.recipe)
    return [{"seed": unit.seed} | row | origin for row in rows]


def take(source: Path, folder: Path = FOLDER) -> int:
    """Add the rows of result files that lie beside, from another machine, but for those that are known; how many."""
    count = 0
    for path in sorted(source.rglob("*.json")):
        name = path.relative_to(source).with_suffix("").as_posix()
        known = {row.get("key") for row in rows_in(name, folder)}
        if new := [row for row in rows_in(name, source) if row["key"] not in known]:
            add(name, new, folder, json.loads(path.read_text(encoding="utf-8"))["command"])
            count += len(new)
    return count
