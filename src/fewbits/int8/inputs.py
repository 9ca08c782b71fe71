"""The integer form of a network whose forward cannot be read: its own forward, each layer with its input on a grid."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx, nn

from fewbits.attach.attach import fold
from fewbits.graph import Kind
from fewbits.graph.norm_pairs import pairs
from fewbits.graph.traced import kind_of_module
from fewbits.int8.folding import fold_into
from fewbits.int8.places import free_name
from fewbits.task.batches import first_of, handing
from fewbits.task.structure import recorded_on
from fewbits.weights import NORMS, layers, shared


class InputOnGrid:
    """A hook in front of a layer: what it is given goes through a quantizer, which exporters may exchange.

    Args:
        holder: the module that has the quantizer. name: of the quantizer there.
    """

    def __init__(self, holder: nn.Module, name: str) -> None:
        self.holder, self.name = holder, name

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        quantizer = self.holder.get_submodule(self.name)
        if args:
            return (quantizer(args[0]), *args[1:]), kwargs
        name, given = next(iter(kwargs.items()))
        return args, kwargs | {name: quantizer(given)}


def hooked_form(
    model: nn.Module, quantizer: type[nn.Module], holder: str, *, inputs: Any = None, names: Iterable[str] | None = None
) -> tuple[nn.Module, dict[str, Tensor]]:
    """A copy of a network with a quantizer (``<holder>.<layer>_input``) in front of each linear or convolutional layer.

    Its other operations stay floating point, and so do products with weights outside of such layers.

    Args:
        model: the network, plain or attached. It is not changed.
        inputs: of a batch; on two of its samples it is seen which normalisations directly follow a layer, and these are
            folded. Without it none is.
        names: of the tensors of a form that was made before; what it lacks is not there, and was folded.

    Raises:
        DataError: the network does not take the inputs.

    Returns:
        The copy, in evaluation mode, and the factors of :func:`fewbits.int8.folding.folded`.
    """
    net = copy.deepcopy(model).eval()
    fold(net)
    factors = {} if inputs is None else fold_seen(net, inputs)
    if names is not None:
        without(net, set(names))
    made = nn.Module()
    owners: dict[str, str] = {}
    for path, layer in layers(net).items():
        parent = net.get_submodule(path.rpartition(".")[0])
        # The attention of PyTorch computes with the weights of its layer, and does not call it.
        if kind_of_module(layer) is Kind.WEIGHTED and not isinstance(parent, nn.MultiheadAttention):
            name = free_name(f"{path}_input".replace(".", "_"), path, owners)
            made.add_module(name, quantizer())
            layer.register_forward_pre_hook(InputOnGrid(made, name), with_kwargs=True)
    net.add_module(holder, made)
    return net.eval(), factors


def inputs_on_grids(net: nn.Module) -> dict[str, str]:
    """``{path of a layer: path of the quantizer of its input}`` of a :func:`hooked_form`."""
    paths = {module: path for path, module in net.named_modules()}
    return {
        path: f"{paths[hook.holder]}.{hook.name}"
        for path, layer in layers(net).items()
        for hook in layer._forward_pre_hooks.values()
        if isinstance(hook, InputOnGrid)
    }


def fold_seen(net: nn.Module, inputs: Any) -> dict[str, Tensor]:
    modules = dict(net.named_modules())
    factors, several = {}, shared(net)
    with handing(net, inputs, "batch 1 of the calibration data"):
        graph = _seen(net, inputs)
    for before, node in pairs(graph, modules):
        layer = modules[str(before.target)]
        if (layer, "weight") not in several:
            factor = fold_into(layer, modules[str(node.target)])
            if factor is not None:
                factors[str(before.target)] = factor
                net.set_submodule(str(node.target), nn.Identity())
    return factors


def _seen(net: nn.Module, inputs: Any) -> fx.Graph:
    """Of one sample, batches have no statistics; and some networks take batches of one size alone."""
    try:
        return recorded_on(net, first_of(inputs, 2))
    except Exception:  # whatever the user's operation raises
        return recorded_on(net, inputs)


def without(net: nn.Module, names: set[str]) -> None:
    """Take out the normalisations that no name is of, and give layers the biases that they left."""
    for path, module in list(net.named_modules()):
        if isinstance(module, NORMS) and module.running_mean is not None and f"{path}.running_mean" not in names:
            net.set_submodule(path, nn.Identity())
    for path, layer in layers(net).items():
        if layer.bias is None and f"{path}.bias" in names:
            layer.bias = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))
