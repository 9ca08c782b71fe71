"""What a process that died in the middle of writing leaves in the way of the others."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fewbits.search.pareto import storage

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


@pytest.mark.parametrize("torn", [False, True])
def test_the_lock_of_a_process_that_died_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage, "GRACE", 3)
    out = Path("out")  # relative, as users give it
    optuna.create_study(study_name="first", storage=storage.opened(None, out))
    journal = out / storage.JOURNAL
    if torn:
        with journal.open("ab") as file:
            file.write(b'{"op_code":0,"wor')
    assert storage.optuna().storages.journal.JournalFileOpenLock(str(journal)).acquire()  # and never released
    assert opened_in_time(out) == ["first", "second"]
    assert sorted(p.name for p in out.iterdir()) == [storage.JOURNAL]
