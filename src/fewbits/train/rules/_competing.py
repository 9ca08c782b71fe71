"""What rules of competing channels share: layers that learn while the network computes, and a head that is told.

The network runs once, without a graph; each hidden layer learns from what it was given and what it said, and is done.
So any network whose layers are linear or convolutional will do, with residual paths and all, and what is held in memory
is one layer's. The last layer learns by the loss's gradient with respect to its own outputs, and so does every layer
before it whose outputs the network gives and no other layer reads: an auxiliary head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from fewbits.attach import evaluating
from fewbits.errors import RecipeError, UnsupportedError
from fewbits.task import run
from fewbits.task.batches import input_of
from fewbits.train.rules._linear import (
    LAYERS,
    Layer,
    by_channel,
    channels_first,
    check_competes,
    correlated,
    lead,
    parameter,
    said,
)
from fewbits.train.rules._rule import Batch, Rule
from fewbits.weights import NORMS

_UNTRAINED = (*NORMS, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.PReLU)


class Heard(NamedTuple):
    """What a rule learns a layer from.

    Attributes:
        name: of the layer. number: among the hidden ones that learn, in the order of calls.
        inputs: what it was given. u: what it said without its bias, ``[N, groups, channels, positions]``.
        samples: of the batch.
    """

    name: str
    layer: Layer
    number: int
    inputs: Tensor
    u: Tensor
    samples: int


Learn = Callable[[Heard, Batch, Any], None]


def competing(
    learn: Learn,
    begin: Callable[[nn.Module], dict[str, Any]] = lambda network: {},
    *,
    head: float,
    lists: Mapping[str, float | list[float]],
) -> Rule:
    """A rule by which hidden layers learn alone and the last one by the loss.

    Args:
        learn: leaves directions on a layer. begin: what it remembers. head: step of the last layer.
        lists: options that may have a value for each hidden layer.
    """

    def init(network: nn.Module) -> dict[str, Any]:
        check_layers(network)
        return {"order": [], "heads": [], **begin(network)}

    def update(network: nn.Module, batch: Batch, state: dict[str, Any]) -> tuple[Any, Tensor, dict[str, Any]]:
        layers = {name: m for name, m in network.named_modules() if isinstance(m, LAYERS)}
        order, heads = state["order"], state["heads"]
        if not order:
            order, heads = _order(network, layers, batch, lists)
        learners = [name for name in order if name not in heads and _learns(layers[name])]
        told: dict[str, tuple[Tensor, Tensor]] = {}  # what a head was given and what it gave: a graph begins there

        def hear(name: str, layer: Layer, args: Any, kwargs: Any, gave: Tensor) -> Tensor | None:
            given = input_of(args, kwargs)
            if name in heads:
                torch.set_grad_enabled(True)  # until the pass ends: a graph begins here
                told[name] = given.detach(), gave.detach().requires_grad_()
                return told[name][1]
            with torch.no_grad():
                u = said(layer, gave.detach())
                learn(Heard(name, layer, learners.index(name), given.detach(), u, len(gave)), batch, state)
            return gave.detach()  # a head may have been called before

        with ExitStack() as stack:
            for name in (*learners, *heads):
                hook = layers[name].register_forward_hook(partial(hear, name), with_kwargs=True)
                stack.callback(hook.remove)
            stack.enter_context(torch.no_grad())
            stack.enter_context(batch.computing())
            outputs = run(network, batch.inputs)
            loss = batch.loss_of(outputs)
        ends = [gave for _, gave in told.values()]
        errors = torch.autograd.grad(loss, ends, allow_unused=True) if loss.requires_grad else [None] * len(ends)
        if all(error is None for error in errors):
            raise UnsupportedError(
                f"the loss does not depend on {order[-1]}, the layer that is called last, and rules of competing "
                "channels teach that one: call the layer that gives what the task reads last, or take backprop"
            )
        with torch.no_grad():
            for (name, (given, _)), error in zip(told.items(), errors, strict=True):
                if error is not None:
                    _teach(layers[name], given, error, head, batch)
        return detached(outputs), loss.detach(), state | {"order": order, "heads": heads}

    return Rule(init, update)


def detached(outputs: Any) -> Any:
    """Outputs of any structure without their graph."""
    return tree_map(lambda part: part.detach() if isinstance(part, Tensor) else part, outputs)


def _order(
    network: nn.Module, layers: Mapping[str, Layer], batch: Batch, lists: Mapping[str, float | list[float]]
) -> tuple[list[str], list[str]]:
    """Layers in the order of their first calls, and which of them are heads, from a pass in evaluation mode.

    Statistics and chance stay as they are. Each layer's outputs begin a graph that ends where the next ones read, so
    none is that of the whole network. A head is the last layer, or one that the outputs depend on and no layer.

    Raises:
        UnsupportedError: no layer, or one whose channels do not compete. RecipeError: lists of another length.
    """
    order: list[str] = []
    begun: dict[int, str] = {}
    read: set[str] = set()
    kept: list[Tensor] = []  # so that no number of an object is given twice

    def hear(name: str, layer: Layer, args: Any, kwargs: Any, gave: Tensor) -> Tensor:
        order.append(name)
        read.update(begun[leaf] for leaf in leaves(input_of(args, kwargs)) if leaf in begun)
        kept.append(gave.new_zeros(()).requires_grad_())
        begun[id(kept[-1])] = name
        return gave.detach() + kept[-1]

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(partial(hear, name), with_kwargs=True).remove)
        stack.enter_context(batch.computing())
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.enable_grad())
        outputs = run(network, batch.inputs)
    given = {begun[leaf] for part in tree_leaves(outputs) for leaf in leaves(part) if leaf in begun}
    order = list(dict.fromkeys(order))
    if not order:
        raise UnsupportedError(f"{type(network).__name__} has no linear or convolutional layer that could learn")
    heads = [name for name in order if name == order[-1] or (name in given and name not in read)]
    learners = [name for name in order if name not in heads and _learns(layers[name])]
    for name in learners:
        check_competes(name, layers[name])
    for option, value in lists.items():
        if isinstance(value, list) and len(value) != len(learners):
            raise RecipeError(
                f"{option} has {len(value)} values, and {len(learners)} hidden layers of the network learn: give one "
                f"number, or {len(learners)}"
            )
    return order, heads


def leaves(value: Any) -> set[int]:
    """Numbers (``id``) of the tensors that begin the graph of a value."""
    if not isinstance(value, Tensor) or not value.requires_grad:
        return set()
    if value.grad_fn is None:
        return {id(value)}
    found, seen, left = set[int](), {value.grad_fn}, [value.grad_fn]
    while left:
        node = left.pop()
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        new = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= new
        left += new
    return found


def _teach(layer: Layer, inputs: Tensor, error: Tensor, step: float, batch: Batch) -> None:
    """The last layer: the loss's gradient for inputs x whose mean m is taken off, by their mean square length.

    That is the normalised delta rule (Widrow and Hoff 1960). Of a softmax's cross-entropy a step of 1 is below the
    inverse of the largest curvature, however long features are. The bias makes up for the mean: ``W x + b`` is
    ``W (x - m) + b'`` with ``b' = b + W m``.
    """
    if not step:
        return
    error = channels_first(layer, error)
    ones = torch.ones_like(error)
    positions = ones.numel() // ones.shape[2]
    total, biased = error.sum((0, 3)).flatten(), layer.bias is not None and getattr(layer, "groups", 1) == 1
    mean = batch.mean(correlated(layer, inputs, ones)[0] / positions) if biased else torch.zeros_like(layer.weight[0])
    square = batch.mean(correlated(layer, inputs.square(), ones)[0].sum() / positions) - mean.square().sum()
    direction = correlated(layer, inputs, error) - by_channel(layer.weight, total) * mean
    direction = step / (square + 1e-12) * direction
    lead(layer, "weight", direction)
    if layer.bias is not None:
        lead(layer, "bias", step * total - (direction * mean).flatten(1).sum(1))


def _learns(layer: Layer) -> bool:
    weight = parameter(layer)
    return weight is not None and weight.requires_grad


def check_layers(network: nn.Module) -> None:
    """Refuse a network with weights of other layers, unless they are frozen.

    Raises:
        UnsupportedError: the message names the layer.
    """
    for path, module in network.named_modules():
        if isinstance(module, (*LAYERS, *_UNTRAINED)) or "parametrizations" in path.split("."):
            continue
        own = [n for n, p in module.named_parameters(recurse=False) if p.requires_grad and p.dim() > 1]
        if own:
            raise UnsupportedError(
                f"{path or type(network).__name__} ({type(module).__name__}, {own[0]}) is no linear or convolutional "
                "layer, so no rule of competing channels trains it: freeze it (requires_grad_(False)), or take backprop"
            )


def each(value: float | list[float], number: int) -> float:
    """An option's value for a hidden layer."""
    return value[number] if isinstance(value, list) else value
