"""Whether a recipe's parts go together: against the rows of its methods, before any work."""

from __future__ import annotations

from typing import Any

from fewbits.codec import Base
from fewbits.errors import RecipeError
from fewbits.hardware import maker_of
from fewbits.ops.fit import check as check_fit
from fewbits.pipeline._pilot import check as check_pilots
from fewbits.pipeline.methods import bits_of, integer_form_of, method_of, trained_as_integers
from fewbits.pipeline.parts import scored_by
from fewbits.pipeline.pruners import PRUNERS, pruner_row
from fewbits.recipe import Measure, Recipe, Select
from fewbits.task import task_of
from fewbits.train.learning import learning
from fewbits.train.rules import backprop


def check(recipe: Recipe) -> None:
    """Refuse what no network could make possible.

    Raises:
        RecipeError: the message names the keys, and a way out.
    """
    if ":" not in recipe.task.name:  # else it is of one's own, which a job makes
        task_of(recipe.task.name, recipe.task.options)
    for part in (_rules, _operations, _machines, _pruning, _steering, _clusters, _integers, _work):
        part(recipe)
    if recipe.measure != Measure() and scored_by(recipe) is None:
        readers = [name for name, row in PRUNERS.items() if row.scores]
        raise RecipeError(
            f"nothing reads the scores of measure: assign.method {recipe.assign.method} has none; use ecqx"
            + (f", or prune.method {' or '.join(readers)}" if readers else "")
            + ", or leave the measure section out"
        )


def _rules(recipe: Recipe) -> None:
    """Every rule by its name and options, before anything is trained."""
    recovery = recipe.channels.train if recipe.channels is not None else None
    ranges = recipe.activations.train if recipe.activations is not None else None
    for section, part in (
        ("pretrain", recipe.pretrain), ("train", recipe.train), ("channels.train", recovery),
        ("activations.train", ranges),
    ):  # fmt: skip
        if part is not None:
            learning(part, section)
    if trained_as_integers(recipe) and learning(recipe.train) is not backprop:
        raise RecipeError(f"activations in integers train by backprop: leave train.rule {recipe.train.rule.name} out")


def _operations(recipe: Recipe) -> None:
    """Every operation, before anything is trained."""
    for name, part in recipe.ops.items():
        try:
            check_fit(name, **part.model_dump())
        except RecipeError as error:
            raise RecipeError(f"ops: {error}") from None


def _machines(recipe: Recipe) -> None:
    """A machine by its name and its figures, before anything is trained."""
    part = recipe.channels
    if part is not None and part.quantity is not None:
        maker_of(f"{part.quantity}@{part.machine}")


def check_call(recipe: Recipe, evaluate: Any, teacher: Any) -> None:
    """Refuse before anything is trained what the arguments of a call do not allow."""
    check(recipe)
    if recipe.max_drop is not None and evaluate is None:
        raise RecipeError("max_drop needs evaluate: a function that gives a network's accuracy in percent")
    if teacher is not None and not recipe.train.distill:
        raise RecipeError("a teacher needs train.distill, the weight of its answers, for example 0.5")
    check_pilots(recipe, evaluate)


def check_based(recipe: Recipe, base: Base | None) -> None:
    """Refuse what cannot be a difference to a base: other shapes, and integers with scales."""
    if base is None:
        return
    if recipe.channels is not None:
        raise RecipeError("a network that loses channels is no difference to its base: leave channels or base out")
    if recipe.ops:
        raise RecipeError("a file of differences holds no other operations than its base: leave ops or base out")
    if recipe.prune is not None and pruner_row(recipe.prune).packed:
        raise RecipeError("a difference without diagonals makes no network without them: leave prune or base out")
    if integer_form_of(recipe):
        raise RecipeError(
            "integer activations go without a base: leave activations (or assign.method int8) or base out"
        )


def _work(recipe: Recipe) -> None:
    idle = method_of(recipe).survivors and not (recipe.prune or recipe.channels or recipe.ops)
    if idle and not (recipe.train.distill and recipe.train.epochs):
        raise RecipeError(
            "assign.method none leaves weights as they are: add a prune, a channels or an ops section, or distil "
            "(train.distill)"
        )


def _pruning(recipe: Recipe) -> None:
    part = recipe.prune
    if part is None:
        return
    row = pruner_row(part)
    taking = [name for name, other in PRUNERS.items() if other.amount == row.amount]
    for key, example in (("pattern", "'2:4'"), ("rates", "{'*': 0.9}"), ("sparsity", "0.9")):
        given = getattr(part, key) is not None
        if key == row.amount and not (getattr(part, key) or (given and key == "sparsity")):
            raise RecipeError(f"prune: method {part.method!r} takes {key}, for example {example}")
        if key != row.amount and given:
            raise RecipeError(
                f"prune: method {part.method!r} takes {row.amount} ({', '.join(taking)} do), and no {key}: leave it out"
            )
    if row.amount != "sparsity" and part.over != "weights":
        raise RecipeError(f"prune: {row.amount} say how many zeros each layer gets: leave over out")
    if not row.rises and part.schedule != "one-shot":
        raise RecipeError(f"prune: method {part.method!r} is there from the start: leave schedule out")
    if part.min_kept and not row.min_kept:
        able = " and ".join(name for name, other in PRUNERS.items() if other.min_kept)
        raise RecipeError(f"prune: min_kept goes with {able}, not with {part.method}")
    for key in ("packing", "lasso"):
        if getattr(part, key) and not row.packed:
            able = " and ".join(name for name, other in PRUNERS.items() if other.packed)
            raise RecipeError(f"prune: {key} goes with {able}, not with {part.method}: leave it out")
    if row.packed and part.over != "weights":
        raise RecipeError(f"prune: sparsity of {part.method} is a share of each layer's diagonals: leave over out")
    if part.lasso and not recipe.train.epochs:
        raise RecipeError("prune: a lasso acts while the network trains, and train has no epochs: leave lasso out")
    if part.lasso and part.schedule == "one-shot":
        raise RecipeError("prune: a lasso acts before diagonals fall: add schedule cubic, or leave lasso out")
    if row.measure not in (None, recipe.measure.name):
        raise RecipeError(
            f"prune: method {part.method!r} needs other scores than {recipe.measure.name}: add measure: "
            f"{{name: {row.measure}}}, or prune by the method scores"
        )
    if row.shrinks and not method_of(recipe).survivors:
        raise RecipeError(f"{part.method} makes floats: use assign.method none, or prune with global-magnitude")


def _steering(recipe: Recipe) -> None:
    method, name = method_of(recipe), recipe.assign.method
    bounded = recipe.target is not None or recipe.assign.lam is not None
    if method.survivors and (bounded or recipe.max_drop is not None):
        raise RecipeError("without an assigner there is no lambda to steer: leave target, max_drop and lam out")
    if not method.steerable and bounded:
        raise RecipeError(f"the size of {name} is what it is: leave target and assign.lam out")
    if recipe.assign.bits == "auto" and not method.open_bits:
        raise RecipeError(f"bits: auto is for ecq and ecqx; {name} has no bits to choose")
    if recipe.assign.bits is not None and method.bits not in (None, recipe.assign.bits):
        raise RecipeError(f"{name} has {method.bits} bits, got {recipe.assign.bits}; for others use ecqx or ecq")
    if recipe.train.gradual:
        if not method.steerable:
            raise RecipeError(f"train.gradual moves lambda; assign.method {name} has none")
        steered = recipe.max_drop is not None and recipe.target is None and not recipe.pilots
        if recipe.assign.lam is not None or steered:
            raise RecipeError("train.gradual moves lambda toward a size: give a target, or max_drop with pilots")


def _clusters(recipe: Recipe) -> None:
    if not recipe.train.damping:
        return
    if not method_of(recipe).clusters:
        raise RecipeError(
            f"train.damping moves weights to their clusters; assign.method {recipe.assign.method} has none"
        )
    if recipe.prune is not None and recipe.prune.regrow:
        raise RecipeError("train.damping moves pruned weights to zero, so none would regrow: leave one of them out")


def _integers(recipe: Recipe) -> None:
    method, name = method_of(recipe), recipe.assign.method
    if integer_form_of(recipe) and method.clusters and bits_of(recipe) > 8:
        raise RecipeError(
            f"activations in integers go with weights of at most 8 bits, got {recipe.assign.bits}: lower assign.bits, "
            "or leave activations out"
        )
    if recipe.activations is not None and recipe.activations.alone and not method.activations:
        raise RecipeError(f"activations.alone goes with assign.method int8; with {name} leave it out")
    ranges = recipe.activations.train if recipe.activations is not None else None
    if ranges is not None and not method.clusters:
        raise RecipeError(f"activations.train is for clusters; {name} trains with integer activations in train")
    if ranges is not None and (learning(ranges) is not backprop or ranges.precision != "float32"):
        raise RecipeError("activations.train learns by backprop in float32: leave rule and precision out of it")
    if not trained_as_integers(recipe):
        return
    allowed = method.precisions if method.activations else ("float32",)
    if recipe.train.precision not in allowed:
        raise RecipeError(
            f"activations in integers train in float32: leave train.precision {recipe.train.precision} out"
        )
    if recipe.significand is not None:
        raise RecipeError(f"the biases of {name} are multiples of its scales already: leave significand out")
    if method.activations and recipe.select != Select():
        raise RecipeError(f"{name} takes every layer: leave the select section out")
