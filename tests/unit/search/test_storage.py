"""What a process that died in the middle of writing leaves in the way of the others."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fewbits.search.sweep import storage

optuna = pytest.importorskip("optuna")


def opened_in_time(out: Path) -> list[str]:
    """Names of the studies after adding one, within a few seconds."""
    found: list[str] = []

    def add() -> None:
        shared = storage.opened(None, out)
        optuna.create_study(study_name="second", storage=shared)
        found.extend(s.study_name for s in optuna.get_all_study_summaries(shared))

    thread = threading.Thread(target=add, daemon=True)
    thread.start()
    thread.join(timeout=20)
    return sorted(found)


@pytest.mark.parametrize("left", ["lock", "lock and half a line", "link of an earlier version"])
def test_what_a_process_that_died_left_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage, "GRACE", 3)
    out = Path("out")  # relative, as users give it
    first = storage.opened(None, out)
    optuna.create_study(study_name="first", storage=first)
    journal = out / storage.JOURNAL
    if left == "link of an earlier version":
        (out / f"{storage.JOURNAL}.lock").symlink_to(journal)  # dangles: it is read from out
    else:
        assert first._backend._lock.acquire()  # and never released
    if left == "lock and half a line":
        with journal.open("ab") as file:
            file.write(b'{"op_code":0,"wor')
    assert opened_in_time(out) == ["first", "second"]
    assert [p.name for p in out.iterdir()] == [storage.JOURNAL]
