"""Recipes: sizes, unknown keys, files."""

from __future__ import annotations

import pytest

from fewbits import recipe as recipes
from fewbits.errors import RecipeError
from fewbits.pipeline import check
from fewbits.recipe import Recipe, make
from fewbits.recipe.notation import parse_size
from fewbits.recipe.sections import Augment


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("200 KB", 200_000),
        ("1.5MB", 1_500_000),
        ("2 KiB", 2048),
        (4096, 4096),
        ("12", 12),
        (" 7 bytes ", 7),
        (".5kb", 500),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KB", "-3 KB", "3 KP", "0", "1e3 KB", "3 K B", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_size(text)


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"'trian'; did you mean 'train'"):
        make({"schema": 2, "trian": {}})
    with pytest.raises(RecipeError, match=r"'train\.epocs'; did you mean 'epochs'"):
        make({"train": {"epocs": 3}})
    with pytest.raises(RecipeError, match=r"'network\.wieghts'; did you mean 'weights'"):
        make({"network": {"name": "lenet-5", "wieghts": "x"}})


def test_augmentation_is_a_word_or_a_section() -> None:
    assert make({"data": {"name": "cifar10", "augment": True}}).data.augment is True  # type: ignore[union-attr]
    section = make({"data": {"name": "cifar10", "augment": {"padding": 3, "fill": "edge"}}}).data.augment  # type: ignore[union-attr]
    assert isinstance(section, Augment)
    assert (section.padding, section.flip, section.fill) == (3, True, "edge")
    wrong: dict[str, object] = {
        r"^data\.augment\.padding is at least 0, got -1$": {"padding": -1},
        r"^data\.augment\.fill is one of black, edge, got 'white'$": {"fill": "white"},
        r"^unknown key 'data\.augment\.pading'; did you mean 'padding'\?$": {"pading": 3},
        r"^data\.augment: true, false, or a section with padding, flip and fill; got 'edge'$": "edge",
    }
    for sentence, value in wrong.items():
        with pytest.raises(RecipeError, match=sentence):
            make({"data": {"name": "cifar10", "augment": value}})
    with pytest.raises(RecipeError, match="1 is a key, and keys are text"):
        make({1: 2})  # type: ignore[dict-item]


def test_values_are_checked() -> None:
    with pytest.raises(RecipeError, match=r"assign\.bits"):
        make({"assign": {"bits": 1}})
    with pytest.raises(RecipeError, match="not a size"):
        make({"target": "many bytes"})
    with pytest.raises(RecipeError, match=r"either assign\.lam or a budget"):
        make({"target": "1 KB", "assign": {"lam": 0.1}})
    with pytest.raises(RecipeError, match="schema"):
        make({"schema": 1})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"train": {"epochs": "x"}}, "train.epochs is a number, got 'x'"),
        ({"train": {"epochs": float("nan")}}, "train.epochs is a finite number, got nan"),
        (
            {"train": {"optimizer": "adan"}},
            "train.optimizer is one of adam, adamw, sgd, got 'adan'; did you mean 'adam'?",
        ),
        ({"train": {"learn": 5}}, "train.learn is true or false, got 5"),
        ({"train": 5}, "train is a section, with keys of its own, got 5"),
        ({"seed": 1.5}, "seed is a whole number, got 1.5"),
        ({"rounds": 0}, "rounds is at least 1, got 0"),
        ({"prune": {"sparsity": 2}}, "prune.sparsity is at most 1, got 2"),
        ({"network": {"name": 5}}, "network.name is text, got 5"),
        ({"network": {}}, "network.name is missing"),
        ({"target": 1.5}, "target is text or a whole number, got 1.5"),
        ({"output": "net.txt"}, "output is like "),
        ({"select": {"include": "a"}}, "select.include is a list, got 'a'"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(values: dict, says: str) -> None:
    with pytest.raises(RecipeError) as told:
        make(values)
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("prune", "says"),
    [
        ({}, "takes sparsity, for example 0.9"),
        ({"sparsity": 1.5}, r"prune\.sparsity"),
        ({"method": "n:m", "sparsity": 0.5}, "takes pattern"),
        ({"method": "n:m", "pattern": "2:4", "sparsity": 0.5}, "takes pattern .*, and no sparsity"),
        ({"method": "n:m", "pattern": "2:4", "schedule": "cubic"}, "leave schedule out"),
        ({"sparsity": 0.9, "pattern": "2:4"}, "and no pattern: leave it out"),
        ({"sparsity": 0.9, "method": "lamp", "min_kept": 5}, "min_kept goes with"),
        ({"sparsity": 0.9, "min_kept": "5 percent"}, "min_kept is a number"),
        ({"sparsity": 0.9, "schedule": "cubic", "begin": 0.5, "end": 0.5}, "begin must lie before end"),
        ({"sparsity": 0.9, "min_kept": "200 %"}, "at most 100 %"),
        ({"sparsity": 0.9, "min_kept": True}, "min_kept is a number of weights"),
        ({"sparsity": 0.9, "min_kept": 1.5}, "min_kept is a number of weights"),
        ({"sparsity": 0.9, "min_kept": -1}, "must not be negative"),
        ({"method": "n:m", "pattern": "4:2"}, "1 <= N <= M; got '4:2'"),
        ({"method": "n:m", "pattern": "0:4"}, "1 <= N <= M; got '0:4'"),
        ({"method": "n:m", "pattern": "half"}, "written like '2:4'"),
        ({"sparsity": 0.9, "methd": "lamp"}, r"'prune\.methd'; did you mean 'method'"),
        ({"sparsity": 0.9, "method": "magnitude"}, r"prune\.method"),
    ],
)
def test_prune_sections_are_checked(prune: dict, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        check(make({"prune": prune}))


def test_pruning_alone_and_before_a_quantizer() -> None:
    assert make({"prune": {"sparsity": 0.9}}).assign.method == "ecqx"
    alone = {"prune": {"sparsity": 0.9, "min_kept": "0.02%"}, "assign": {"method": "none"}}
    assert make(alone).prune.min_kept == "0.02%"
    with pytest.raises(RecipeError, match="add a prune, a channels or an ops section"):
        check(make({"assign": {"method": "none"}}))
    with pytest.raises(RecipeError, match="no lambda to steer"):
        check(make(alone | {"target": "1 KB"}))
    with pytest.raises(RecipeError, match="feather makes floats"):
        check(make({"prune": {"sparsity": 0.9, "method": "feather"}}))


def test_bundled_recipes_load_and_say_what_they_are() -> None:
    assert {"demo", "ecqx-4bit"} <= set(recipes.names())
    for name in recipes.names():
        assert isinstance(recipes.load(name), Recipe)
        assert recipes.text_of(name).startswith("# ")


def test_files(tmp_path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("schema: 2\ntarget: 3 KB\n")
    assert recipes.load(path).target_bytes == 3000
    path.write_text("target: 3 KB\n")
    with pytest.raises(RecipeError, match="schema: 2"):
        recipes.load(path)
    path.write_text("a: [")
    with pytest.raises(RecipeError, match="not YAML"):
        recipes.load(path)
    path.write_text("- 3")
    with pytest.raises(RecipeError, match="list"):
        recipes.load(path)
    with pytest.raises(RecipeError, match="did you mean 'demo'"):
        recipes.load("dmo")


def test_updated_is_checked_and_keeps_the_rest() -> None:
    one = make({"seed": 5, "assign": {"lam": 0.3}})
    two = one.updated(target="9 KB", assign={"lam": None})
    assert (two.seed, two.target_bytes, two.assign.lam) == (5, 9000, None)
    with pytest.raises(RecipeError):
        one.updated(target="9 KB")
