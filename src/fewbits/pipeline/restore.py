"""From a plan or a file to the network that computes with it, whatever form that network has."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from fewbits import codec
from fewbits.approximation import approximations_of
from fewbits.attach.attach import counters
from fewbits.channels.load import load_plan
from fewbits.codec import Base
from fewbits.int8.form import bias_units, form_for, is_integer, is_integer_plan, load_affine
from fewbits.plan import Plan
from fewbits.weights import places


def network_of(plan: Plan, like: nn.Module) -> nn.Module:
    """A network of its own with the tensors of a plan, in evaluation mode.

    A plan of an integer form gives that of ``like`` (:func:`fewbits.int8.form.form_for`); any other a copy of it.

    Raises:
        MismatchError: names or shapes differ.
    """
    if integer(plan, like):
        net = form_for(plan, like)
        load_affine(net, plan)
        return net
    # Parameters get memory without numbers, as all of them come from the plan.
    given = [p for p in like.parameters() if type(p) is nn.Parameter]
    model = copy.deepcopy(like, {id(p): nn.Parameter(torch.empty_like(p), p.requires_grad) for p in given})
    load_plan(model, plan)
    return model.eval()


def restore(data: bytes, like: nn.Module, base: Base | None = None) -> tuple[nn.Module, Plan]:
    """The network and the plan in the bytes of a ``.few`` file; ``like`` is an untrained network of the same class.

    Args:
        base: what the file's differences are to.

    Raises:
        FormatError, MismatchError: as :func:`fewbits.codec.decode`.
    """
    plan = decoded(data, like, base)
    return network_of(plan, like), plan


def holds(net: nn.Module, plan: Plan) -> bool:
    """Whether every tensor of a network is bit-equal to the plan's, in every place that computes with it, and every
    operation is the plan's.

    Numbers are taken from the entries, not from what :func:`network_of` does with them.
    """
    if approximations_of(net) != plan.approximations:
        return False
    units = bias_units(net, plan) if plan.affine else {}
    counted = counters(net)
    for name, own in places(net).items():
        entry = next((plan[place.name] for place in own if place.name in plan), None)
        if entry is None:
            if name in counted:
                continue
            return False
        for place in own:
            wanted, path = entry.values(), place.name.removesuffix(".bias")
            if path in units and path != place.name:  # of the layer's accumulator
                wanted = (wanted / units[path]).round() * units[path]
            found = place.tensor.detach().cpu()
            if not torch.equal(found, wanted.cpu().to(found.dtype)):
                return False
    return True


def decoded(data: bytes, like: nn.Module, base: Base | None = None) -> Plan:
    """The plan in a file, compared with ``like`` (or with its integer form, if the file is of one)."""
    if base is not None:  # which is no integer form
        return codec.decode(data, like=like, base=base)
    names = [name for tensor in codec.inspect(data).tensors for name in (tensor.name, *tensor.aliases)]
    return codec.decode(data, like=form_for(names, like) if integer(names, like) else like)


def integer(names: Iterable[str], like: nn.Module) -> bool:
    """Whether tensors of these names are of the integer form of ``like``, and not of a network of its own class."""
    return is_integer_plan(names) and not is_integer(like) and not is_integer_plan(like.state_dict())
