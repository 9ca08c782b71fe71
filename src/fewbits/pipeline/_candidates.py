"""What would be written now: from the network in training to a plan, its bytes and its accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, send_to_device
from torch import nn

from fewbits import codec
from fewbits.attach import Floats, Holder, Parametrized
from fewbits.codec import Base
from fewbits.errors import DataError
from fewbits.graph.norm_pairs import biased
from fewbits.pipeline._integers import Integers
from fewbits.pipeline._sources import bases_of
from fewbits.pipeline.restore import holds, network_of, restore
from fewbits.plan import Plan
from fewbits.recipe import Recipe
from fewbits.task import Fed, run
from fewbits.task.batches import run_apart, tensors_in
from fewbits.task.metric import number
from fewbits.task.stream import NoBatches
from fewbits.weights import places

Evaluate = Callable[[nn.Module], float]
"""``evaluate(model) -> number``, higher is better; on validation data, because choices are made with it."""


def broadcast_from_main(value: float) -> float:
    """The main process's number on every process: rounding must not lead to different plans."""
    found = [value]
    broadcast_object_list(found)
    return found[0]


def evaluated(evaluate: Evaluate, model: nn.Module) -> float:
    """How good a plain network is, the main process's number on every process."""
    with torch.random.fork_rng():  # how often somebody looks must not change what is trained
        return broadcast_from_main(number(evaluate(model)))


class Candidates:
    """Makes, codes and evaluates plans of one network.

    Args:
        original: the float network that is compressed; it may have lost channels.
        evaluate: how good a network is, higher is better, or ``None``.
        full: the float network that the user gave, against which everything is told; default: ``original``.
        holder: how plans are held; default: as weights of the network itself.
        calibration: inputs, where clusters are written with integer activations, see :class:`Integers`.
        base: the file that plans are differences to, or ``None``.
        forward: runs a network once on data of its own, see :func:`fewbits.graph.norm_pairs.across`.

    Attributes:
        bases: its tensors that the network's are differences to, by name; none without a base.
    """

    def __init__(
        self,
        recipe: Recipe,
        original: nn.Module,
        evaluate: Evaluate | None,
        full: nn.Module | None = None,
        holder: Holder | None = None,
        calibration: Sequence[Any] | None = None,
        base: Base | None = None,
        forward: Callable[[nn.Module], object] | None = None,
    ) -> None:
        self.recipe, self.original, self.evaluate = recipe, original, evaluate
        self.full, self.holder = original if full is None else full, holder or Parametrized()
        self.base, self.bases = base, {} if base is None else bases_of(base, original)
        taken = biased(original, forward) if recipe.merge_normalisation else {}
        self.floats = Floats(
            getattr(torch, recipe.floats), recipe.significand, recipe.merge_normalisation, taken, self.bases
        )
        self.integers = None
        if calibration is not None:  # floats are shortened after folding, once
            self.integers, self.floats = Integers(original, calibration, self.floats), Floats()
        self._known: codec.Known = {}  # once assignments stay, levels need not be coded again

    @property
    def name(self) -> str:
        """The network's name in the file."""
        return self.recipe.network.called if self.recipe.network else type(self.original).__name__

    def of(self, model: nn.Module) -> Plan:
        """The plan that would be written if the training of ``model`` ended here."""
        plan = self.holder.plan(model, self.floats)
        if self.integers is not None:
            return self.integers.calibrated(plan)
        if self.base is None:
            return plan
        # in the order in which a file of differences is read again, not in that of an attached network
        ordered = {name: plan[name] for name in places(self.original) if name in plan}
        return Plan(ordered, aliases=plan.aliases, approximations=plan.approximations)

    def written(self, plan: Plan) -> Plan:
        """The plan that the file holds, which is in integer form if activations are."""
        return plan if self.integers is None else self.integers.written(plan)

    def encoded(self, plan: Plan) -> bytes:
        """The file."""
        made, profile = self.written(plan), self.recipe.coding
        return codec.encode(made, header={"model": self.name}, profile=profile, base=self.base, known=self._known)

    def size(self, plan: Plan) -> int:
        """Bytes of the file."""
        return len(self.encoded(plan))

    def network(self, plan: Plan) -> nn.Module:
        """The network that the file of a plan gives, in evaluation mode."""
        return network_of(self.written(plan), self.original)

    def accuracy(self, plan: Plan) -> float:
        """How good it is on validation data, higher is better."""
        return self.evaluated(self.network(plan))

    def evaluated(self, model: nn.Module) -> float:
        """How good a plain network is on validation data."""
        assert self.evaluate is not None
        return evaluated(self.evaluate, model)

    @torch.no_grad()
    def identical(self, written: Plan, data: bytes, train: Any) -> bool:
        """Decode the file; compare its network's tensors with the plan's, and its outputs on real inputs with the
        compressed network's. Without any inputs the tensors decide alone."""
        inputs = self._some_of(train)
        # Its network goes before the other comes: two are one too many.
        expected = None if inputs is None else list(tensors_in(run_apart(network_of(written, self.original), inputs)))
        decoded = restore(data, self.full, self.base)[0]
        if not holds(decoded, written):
            return False
        if expected is None:
            return True
        found = list(tensors_in(run(decoded, inputs)))
        return len(expected) == len(found) and all(map(torch.equal, expected, found))

    def _some_of(self, train: Any) -> Any:
        if isinstance(train.loader if isinstance(train, Fed) else train, NoBatches):
            return None
        for batch in train:
            return send_to_device(batch[0], next(self.original.parameters()).device)  # whole: some take one size only
        raise DataError("the training data is empty: the loader yields no batch")
