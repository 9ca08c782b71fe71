"""Where a search's accuracy comes from: training samples only, recalibrated, always from the dense weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from fewbits.attach import attach, fold
from fewbits.data import DataSet
from fewbits.errors import DataError, FileError, RecipeError, SelectionError
from fewbits.search.layer_rates import Proxy, RateSpace, carve, search
from fewbits.task import accuracy
from fewbits.train import recalibrate
from fewbits.weights import select


def rows(inputs: torch.Tensor) -> set[bytes]:
    return {x.contiguous().numpy().tobytes() for x in inputs}


def test_no_sample_of_the_proxy_is_one_that_results_are_reported_on(handwriting: DataSet) -> None:
    for seed in (0, 1):
        proxy, calibration = carve(handwriting, 200, 64, seed)
        mine, others = (rows(torch.cat([x for x, _ in part])) for part in (proxy, calibration))
        assert sum(len(y) for _, y in proxy) == 200
        assert sum(len(y) for _, y in calibration) == 64
        train = rows(handwriting.normalisation.apply(handwriting.train.inputs))
        assert mine <= train
        assert others <= train
        assert not mine & others
        for split in ("validation", "test"):
            reported = rows(torch.cat([x for x, _ in handwriting.loader(split, 256)]))
            assert not (mine | others) & reported
    again, _ = carve(handwriting, 200, 64, 1)
    assert all(torch.equal(a, b) for a, b in zip(proxy[0], again[0], strict=True))
    counts = torch.bincount(torch.cat([y for _, y in proxy]))
    assert counts.max() - counts.min() <= 4, "by class"


@pytest.mark.parametrize(("proxy", "calibration"), [(0, 10), (10, 0), (1000, 77)])
def test_impossible_parts(handwriting: DataSet, proxy: int, calibration: int) -> None:
    with pytest.raises(DataError, match="cannot be taken of the 1077 training samples of digits"):
        carve(handwriting, proxy, calibration)


def test_an_answer_is_that_of_the_pruned_and_recalibrated_network(trained: nn.Module, handwriting: DataSet) -> None:
    proxy, calibration = carve(handwriting, 200, 64)
    before = copy.deepcopy(trained.state_dict())
    space = RateSpace(select(trained), 5)
    measure = Proxy(trained, space, proxy, calibration)
    choices = [(40, 800, 100), (20, 300, 60), space.dense, (5, 5, 5)]
    answers = [measure(kept) for kept in choices]
    for kept, answer in zip(choices, answers, strict=True):
        alone = copy.deepcopy(trained)
        mask = {n: space.mask(i, kept[i]) for i, n in enumerate(space.names)}
        with torch.no_grad():
            for name, keep in mask.items():
                alone.get_parameter(name).mul_(keep)
        uncalibrated = accuracy(alone, proxy)
        recalibrate(alone, calibration, trained)
        assert answer == accuracy(alone, proxy)
        if kept == (20, 300, 60):
            assert answer != uncalibrated
        if kept == space.dense:
            assert answer == uncalibrated, "an untouched network is not touched"
    assert [measure(kept) for kept in reversed(choices)] == answers[::-1]
    assert measure.runs == 4
    assert all(torch.equal(a, b) for a, b in zip(before.values(), trained.state_dict().values(), strict=True))


def test_bfloat16_is_close(trained: nn.Module, handwriting: DataSet) -> None:
    proxy, calibration = carve(handwriting, 200, 64)
    space = RateSpace(select(trained))
    both = [Proxy(trained, space, proxy, calibration, precision=p)((60, 2000, 250)) for p in ("float32", "bfloat16")]
    assert abs(both[0] - both[1]) < 3


def test_a_search_with_its_journal_goes_on_where_it_was(
    trained: nn.Module, handwriting: DataSet, tmp_path: Path
) -> None:
    proxy, calibration = carve(handwriting, 100, 64)
    options = {"method": "purl", "evaluations": 20, "sparsity": 0.95, "seed": 3}
    whole = search(trained, proxy, calibration, **options)
    assert whole.evaluations == 20
    assert whole.score > -1
    journal = tmp_path / "answers"

    def stop(done: int, budget: int, text: str) -> None:
        if done == 7:
            raise KeyboardInterrupt

    part = search(trained, proxy, calibration, journal=journal, progress=stop, **options)
    assert (part.finished, part.evaluations) == (False, 7)
    answers = journal.read_text().splitlines()
    assert len(answers) == 1 + 1 + 7, "a head, the dense network, and seven choices"
    with journal.open("a") as file:
        file.write("[93.0, 1")  # cut off
    assert search(trained, proxy, calibration, journal=journal, **options) == whole
    assert journal.read_text().splitlines()[: len(answers)] == answers, "none was asked twice"
    assert len(journal.read_text().splitlines()) == 1 + 1 + 20

    with pytest.raises(DataError, match="another network, other data"):
        search(trained, proxy[::-1], proxy, journal=journal, **options)
    journal.write_text(answers[0] + "\nno answer\n")
    with pytest.raises(DataError, match="damaged"):
        search(trained, proxy, calibration, journal=journal, **options)
    with pytest.raises(FileError, match="cannot use the journal"):
        search(trained, proxy, calibration, journal=tmp_path / "no" / "where", **options)


def test_what_is_found_is_a_recipe_and_an_assigner(trained: nn.Module, handwriting: DataSet) -> None:
    proxy, calibration = carve(handwriting, 200, 64)
    found = search(trained, proxy, calibration, method="lamp", evaluations=15, sparsity=0.9, min_kept=4)
    assert list(found.recipe()["prune"]["rates"]) == list(select(trained))
    weights = select(trained)
    assigner = found.assigner()
    plan, _ = assigner.update(weights, None, assigner.init(weights))
    zeros = sum(int((~entry.kept).sum()) for entry in plan.compressed.values())
    assert zeros / sum(w.numel() for w in weights.values()) == pytest.approx(found.sparsity)
    assert min(int(entry.kept.sum()) for entry in plan.compressed.values()) >= 4
    dense = copy.deepcopy(trained)
    attach(trained, plan)
    fold(trained)
    recalibrate(trained, calibration, dense)
    assert accuracy(trained, proxy) == found.accuracy
    assert found.as_dict()["evaluations"] == found.evaluations <= 15


def test_a_target_that_is_met_ends_the_search(trained: nn.Module, handwriting: DataSet) -> None:
    proxy, calibration = carve(handwriting, 200, 64)
    found = search(trained, proxy, calibration, method="random", evaluations=50, sparsity=0.05, max_drop=50)
    assert found.met
    assert found.evaluations < 50


def test_what_a_search_refuses(trained: nn.Module, handwriting: DataSet) -> None:
    proxy, calibration = carve(handwriting, 50, 20)
    with pytest.raises(RecipeError, match="sparsity to reach"):
        search(trained, proxy, calibration, sparsity=1.5)
    with pytest.raises(RecipeError, match="max_drop is points of accuracy"):
        search(trained, proxy, calibration, max_drop=200)
    with pytest.raises(SelectionError, match="matches no weight"):
        search(trained, proxy, calibration, include=("nothing.*",))
    with pytest.raises(DataError, match="proxy and calibration"):
        search(trained, [], calibration)
