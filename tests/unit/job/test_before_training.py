"""What a recipe's network could not be compressed by is found before it is trained."""

from pathlib import Path
from typing import Any

import pytest

from fewbits import job
from fewbits import recipe as recipes
from fewbits.errors import FewbitsError


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"select": {"include": ["nothing*"]}}, r"pattern 'nothing\*' matches no weight"),
        ({"base": "missing.few"}, "cannot read 'missing.few'"),
        ({"assign": {"method": "ecq", "bits": "auto"}}, "bits: auto needs a budget"),
        ({"assign": {"method": "ecq", "lam": 0.1, "options": {"zero_flor": 0.5}}}, "no 'zero_flor'; did you mean"),
        ({"ops": {"gelu": {"kind": "lines", "error": 1e-3}}}, "the network calls no gelu; it calls none that is known"),
        ({"prune": {"sparsity": 0.9, "min_kept": "99%"}}, "lower the sparsity or min_kept"),
        ({"prune": {"method": "layers", "rates": {"nothing*": 0.9}}}, "belongs to no weight"),
    ],
)
def test_it_is_refused_before(
    changes: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewbits.job._job.pretrain", lambda *args, **more: pytest.fail("it was trained"))
    monkeypatch.chdir(tmp_path)
    values = {"network": {"name": "digits-net"}, "data": {"name": "digits"}, "pretrain": {"epochs": 1}}
    recipe = recipes.make(values | {"assign": {"method": "ecq", "lam": 0.1}, "train": {"epochs": 1}} | changes)
    with pytest.raises(FewbitsError, match=sentence):
        job.prepare(recipe)


def test_what_could_be_compressed_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    monkeypatch.setattr("fewbits.job._job.pretrain", lambda *args, **more: trained.append(args))
    values = {"network": {"name": "digits-net"}, "data": {"name": "digits"}, "pretrain": {"epochs": 1}}
    job.prepare(recipes.make(values | {"assign": {"method": "ecq"}, "max_drop": 0.5, "prune": {"sparsity": 0.5}}))
    assert len(trained) == 1
