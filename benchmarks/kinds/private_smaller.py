"""Smaller networks for encrypted inference: fewer maps at a predicted cost, fewer generalized diagonals."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.kinds.private_networks import BATCH, Images, fit
from benchmarks.unit import Row
from fewbits.assign import grouped
from fewbits.channels import by_taylor, choose, dependencies, prune_channels, unit_scores
from fewbits.errors import BudgetError
from fewbits.pipeline.stages.channels import sizes_of
from fewbits.private import compile_network, diagonals_of
from fewbits.private.compile import ERRORS
from fewbits.private.price import estimated, predicted
from fewbits.train.group_lasso import GroupLasso
from fewbits.train.objectives import distillation

FALLING = 0.6  # share of the training in which diagonals fall
STEP = 0.02  # of the sparsity, at which they fall next
SCORED = 2048  # training images that channels are scored on
LEFT = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1)  # shares of multiplications that are tried


class FallingDiagonals:
    """Diagonals of weights that fall while a network trains, under group lasso, until what is left learns alone.

    Args:
        model: the network; its diagonals are those of its dense program in the fast profile.
        degree: of the ring. asked: ``prune`` (names of weights; none for all), ``sparsity``, ``lasso``, and
            ``lines``: whether diagonals are chosen that share rotations.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...], degree: int, asked: Row) -> None:
        found = diagonals_of(model, shape, degree=degree, profile="fast")
        named = dict(model.named_parameters())
        self.held = {name: named[name] for name in found.groups if name in asked["prune"] or not asked["prune"]}
        self.groups = {name: found.groups[name] for name in self.held}
        self.lines = found.lines if asked.get("lines") else None
        self.masks = {name: torch.ones_like(weight) for name, weight in self.held.items()}
        self.lasso = GroupLasso(self.groups, asked["lasso"], FALLING)
        self.sparsity, self.at = asked["sparsity"], 0.0

    def gradients(self, share: float) -> None:
        """Before a step: diagonals fall along a cubic, and lasso draws those that are left."""
        falling = self.lasso.acts(share)
        target = self.sparsity * (1 - (1 - min(1.0, share / FALLING)) ** 3)
        if target - self.at > (STEP if falling else 0.0):
            assigner = grouped(target, self.groups, lines=self.lines)
            given = {name: weight.detach() for name, weight in self.held.items()}
            plan, _ = assigner.update(given, None, assigner.init(given))
            self.masks = {name: entry.kept.float() for name, entry in plan.compressed.items()}
            self.at = target
        if falling:
            self.lasso.add(self.held)

    @torch.no_grad()
    def weights(self) -> None:
        """After a step: what fell stays zero."""
        for name, weight in self.held.items():
            weight.mul_(self.masks[name])


def pruned(dense: nn.Module, data: Images, asked: Row) -> nn.Module:
    """A copy with fewer diagonals, taught by the dense network where ``distill`` gives its weight."""
    model = copy.deepcopy(dense)
    objective = distillation(copy.deepcopy(dense), asked["distill"]) if asked.get("distill") else None
    degree = asked.get("degree") or predicted_of(dense, data.train[0][:BATCH]).degree
    falling = FallingDiagonals(model, tuple(data.train[0].shape[1:]), degree, asked)
    fit(model, data.train, asked["pruned_epochs"], asked.get("pruned_lr", 1e-3), falling, objective)
    return model


def narrowed(dense: nn.Module, data: Images, most: float, asked: Row) -> nn.Module:
    """A copy without the maps of convolutions that matter least, trained on with the dense network as teacher.

    Of all beginnings of the ranking the shortest is taken whose program is predicted to take at most ``most``
    milliseconds. Linear layers keep their outputs: their diagonals are what is pruned of them.
    """
    inputs, targets = data.train
    shape = tuple(inputs.shape[1:])
    found, sizes = dependencies(dense, shape), sizes_of(dense, shape)
    batches = [(inputs[at : at + BATCH], targets[at : at + BATCH]) for at in range(0, SCORED, BATCH)]
    scores = unit_scores(found, by_taylor(dense, batches))
    linear = [name for name, weight in dense.named_parameters() if weight.dim() == 2]
    with torch.no_grad():  # maps that go make outputs smaller until the network is trained on, and noise stays
        error = ERRORS["fast"] * float(dense(inputs[:BATCH]).abs().max())
    for left in LEFT:
        small = copy.deepcopy(dense)
        prune_channels(small, choose(found, scores, sizes, left=left, exclude=linear, per_saving=True).channels)
        if predicted_of(small, inputs[:BATCH], error).milliseconds <= most:
            break
    else:
        raise BudgetError(f"no network of fewer maps is predicted to take {most:g} milliseconds or less")
    fit(small, data.train, asked["narrowed_epochs"], objective=distillation(copy.deepcopy(dense), asked["distill"]))
    return small


@dataclass(frozen=True)
class Predicted:
    """Of a fast program: the degree of its ring, and milliseconds."""

    degree: int
    milliseconds: float


_known: dict[tuple[tuple[int, ...], ...], Predicted] = {}


def predicted_of(model: nn.Module, samples: Tensor, error: float | None = None) -> Predicted:
    """What a network of these sizes would take, with outputs off by ``error`` at most; compiled once for each."""
    key = (*(tuple(weight.shape) for weight in model.parameters()), (len(list(model.modules())),))
    if key not in _known:
        program = compile_network(model, samples, profile="fast", error=error)
        parameters = program.profile.parameters
        _known[key] = Predicted(parameters.degree, 1000 * predicted(program.counts, estimated(parameters)))
    return _known[key]
