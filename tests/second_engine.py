"""Relevance a second way, by the epsilon rule: the gradient of a rewritten forward pass, times the value.

The network is taken apart into primitive operations by ``make_fx``, and computed again with each of them written so
that its gradient is the rule: activations as ``x * constant``, scales and (with ``detach``) softmax as constants,
halved gradients for products of two tensors that carry data. Nothing is shared with the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

ELEMENTWISE = (
    *("gelu", "silu", "hardswish", "mish", "elu", "celu", "hardsigmoid", "sigmoid", "tanh", "hardtanh", "softplus"),
    *("clamp", "clamp_min", "clamp_max", "erf"),
)
PRODUCTS = ("mul", "mm", "bmm", "addmm", "baddbmm", "addcmul", "dot", "mv")
SCALES = ("rsqrt", "sqrt", "reciprocal", "var", "std", "linalg_vector_norm", "norm")
GATES = ("sigmoid", "hardsigmoid")
SOFTMAX = ("softmax", "safe_softmax")
FORMULAS = ("NewGELUActivation", "QuickGELUActivation", "FastGELUActivation", "QuickGELU")


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / 2


class Rewritten(fx.Interpreter):
    """Computes a graph of primitive operations, each as its rule wants it; knows which values carry data."""

    def __init__(self, module: fx.GraphModule, data: set[str], detach: bool) -> None:
        super().__init__(module)
        self.data, self.detach, self.carrying = data, detach, set[int]()
        self.kept: list[Tensor] = []  # so that no identity is given twice

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().placeholder(target, args, kwargs)
        if str(target) in self.data:
            self.mark(value)
        return value

    def mark(self, value: Any) -> None:
        for t in tree_leaves(value):
            if isinstance(t, Tensor):
                self.kept.append(t)
                self.carrying.add(id(t))

    def carries(self, value: Any) -> bool:
        return any(id(t) in self.carrying for t in tree_leaves(value) if isinstance(t, Tensor))

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        packet = getattr(target, "overloadpacket", target)
        name = getattr(packet, "__name__", str(packet))
        in_place = name.endswith("_")
        name = name.rstrip("_").removeprefix("_")
        carries = self.carries(args)
        if name == "embedding" or (name == "convolution" and not args[0].requires_grad):
            carries = True
        if name in ("mm", "addmm", "bmm") and not args[name == "addmm"].requires_grad:
            carries = True  # a table of constants
        found = self.computed(name, target, args, kwargs) if carries else target(*args, **kwargs)
        if in_place and isinstance(args[0], Tensor) and found is not args[0]:
            args[0].data.copy_(found.detach())
        stops = name in SCALES or name == "detach" or (self.detach and (name in GATES or name in SOFTMAX))
        if carries and not stops:
            self.mark(found)
        return found

    def computed(self, name: str, target: Any, args: Any, kwargs: Any) -> Any:
        plain = getattr(torch.ops.aten, name, None)
        if name in ("view", "unsafe_view"):  # memory lies otherwise here
            return args[0].reshape(args[1])
        if name in ELEMENTWISE:
            x = args[0]
            with torch.no_grad():
                how = plain if plain is not None else target
                y, zero = how(x.clone(), *args[1:], **kwargs), how(torch.zeros_like(x), *args[1:], **kwargs)
                near = x.abs() < 1e-8
                slope = torch.where(near, 0.0, (y - zero) / torch.where(near, 1.0, x))
            if near.any():
                here = x.detach()[near].requires_grad_()
                with torch.enable_grad():
                    out = how(here.clone(), *args[1:], **kwargs)
                slope[near] = torch.autograd.grad(out.sum(), here)[0]
            found = x * slope + zero
            return found.detach() if self.detach and name in GATES else found
        if name in SCALES:
            return target(*args, **kwargs).detach()
        if name == "var_mean":
            v, m = target(*args, **kwargs)
            return v.detach(), m
        if name in SOFTMAX:
            y = target(*args, **kwargs)
            return y.detach() if self.detach else y
        if name == "div":
            return plain(args[0], args[1].detach() if self.carries(args[1]) else args[1], *args[2:], **kwargs)
        if name in PRODUCTS:
            first = 1 if name in ("addmm", "baddbmm", "addcmul") else 0
            factors = args[first:]
            if sum(self.carries(f) for f in factors) >= 2:
                factors = tuple(Halved.apply(f) if self.carries(f) else f for f in factors)
            return plain(*args[:first], *factors, **kwargs)
        if name == "native_layer_norm":
            x, shape, w, b, eps = args
            over = tuple(range(-len(shape), 0))
            y = (x - x.mean(over, keepdim=True)) * (x.detach().var(over, unbiased=False, keepdim=True) + eps).rsqrt()
            return (y if w is None else y * w) + (0 if b is None else b), None, None
        if name == "native_group_norm":
            x, w, b, n, channels, _, groups, eps = args
            y = x.reshape(n, groups, -1)
            y = (y - y.mean(-1, keepdim=True)) * (y.detach().var(-1, unbiased=False, keepdim=True) + eps).rsqrt()
            shape = (1, channels, *[1] * (x.dim() - 2))
            y = y.reshape(x.shape)
            return (y if w is None else y * w.reshape(shape)) + (0 if b is None else b.reshape(shape)), None, None
        if name in ("native_batch_norm", "native_batch_norm_legit") and args[-3]:  # of each instance
            x, w, b, *_, eps = args
            over, shape = [d for d in range(x.dim()) if d != 1], (1, -1, *[1] * (x.dim() - 2))
            y = (x - x.mean(over, keepdim=True)) * (x.detach().var(over, unbiased=False, keepdim=True) + eps).rsqrt()
            return (y if w is None else y * w.reshape(shape)) + (0 if b is None else b.reshape(shape)), None, None
        return target(*args, **kwargs)


def relevance(
    model: nn.Module, run: Callable[..., Tensor], inputs: Mapping[str, Tensor], start: Tensor, attention: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Relevance of inputs and of parameters, by name.

    Args:
        run: ``run(model, inputs)`` gives the outputs. start: their relevance.
    """
    parameters = {name: p.detach().clone() for name, p in model.named_parameters()}
    floats = {name: x for name, x in inputs.items() if x.is_floating_point()}

    class Caller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, given: Mapping[str, Tensor]) -> Tensor:
            return run(self.model, {**inputs, **given})

    def computed(weights: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Tensor:
        return functional_call(
            Caller(), {f"model.{name}": w for name, w in weights.items()}, (given,), tie_weights=True
        )

    hooks = [m.register_forward_hook(_constant) for m in model.modules() if type(m).__name__ in FORMULAS]
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            graph = make_fx(computed)(parameters, floats)
    finally:
        for hook in hooks:
            hook.remove()
    leaves = tree_map(lambda t: t.detach().clone().requires_grad_(), (parameters, floats))
    names = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
    flat = tree_leaves(leaves)
    assert len(names) == len(flat)
    through = [t * 1.0 for t in flat]  # what is written in place is no leaf
    interpreter = Rewritten(graph, set(names[len(parameters) :]), attention == "detach")
    outputs = tree_leaves(interpreter.run(*through, enable_io_processing=False))[0]
    (outputs * (start / outputs.detach())).sum().backward()
    weights, given = (
        {name: torch.zeros_like(t) if t.grad is None else t.detach() * t.grad for name, t in part.items()}
        for part in leaves
    )
    return given, weights


def _constant(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    (x,) = args
    return x * (output / x).detach()
