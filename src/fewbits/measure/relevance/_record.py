"""What flowed through a network in one forward pass, as relevance needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from fewbits.errors import UnsupportedError
from fewbits.graph.traced import DROPOUTS, TracedGraph, arguments, overwrites


class ActivationTape:
    """Values of the graph's nodes, taken from the layers' own forward and completed on demand.

    The model runs as it always does (in training mode, under a wrapper, with a plan attached); hooks on its
    layers keep references to what they computed, so a training step needs no second forward for relevance.

    Args:
        lens: structure of the model.
        model: the network itself (not a wrapper around it).
        samples: keep only this many first samples of the batch for relevance; ``None`` for all.
    """

    def __init__(self, traced: TracedGraph, model: nn.Module, samples: int | None = None) -> None:
        self.traced = traced
        self.model = model
        self.samples = samples
        self._recorded: dict[fx.Node, Tensor] = {}  # whole batch
        self._versions: dict[fx.Node, int] = {}
        self._seen: dict[str, int] = {}
        self._values: dict[fx.Node, Any] = {}  # the samples that count

    @contextmanager
    def watch(self) -> Iterator[ActivationTape]:
        """Record the forward passes inside the ``with`` block; the last one counts."""
        self.clear()
        with ExitStack() as hooks:
            for path, nodes in self.traced.calls.items():
                module = self.model.get_submodule(path)
                handle = module.register_forward_hook(self._hook(path, nodes), with_kwargs=True)
                hooks.callback(handle.remove)
            hooks.callback(self.model.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
            yield self

    def clear(self) -> None:
        """Let go of the recorded tensors."""
        for kept in (self._recorded, self._versions, self._seen, self._values):
            kept.clear()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.clear()
        self._keep(self.traced.input, (*args, *kwargs.values())[0])

    def _hook(self, path: str, nodes: list[fx.Node]) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> None:
            call = self._seen.get(path, 0)
            self._seen[path] = call + 1
            if call >= len(nodes):
                raise UnsupportedError(f"{path} runs more often than the traced network says ({len(nodes)} times)")
            node = nodes[call]
            source = node.all_input_nodes[0]
            # What the layer really saw, functional dropout included; in place, that is overwritten by now.
            if source not in self._recorded and not overwrites(node, self.model):
                self._keep(source, (*args, *kwargs.values())[0])
            self._keep(node, output)

        return hook

    def _keep(self, node: fx.Node, tensor: Tensor) -> None:
        value = tensor.detach()
        if value.dtype in (torch.float16, torch.bfloat16):  # under autocast
            value = value.float()
        elif node in self.traced.mutated:
            value = value.clone()
        self._recorded[node] = value
        self._versions[node] = value._version

    def whole(self, node: fx.Node) -> Tensor:
        """What went into or came out of a layer, for the whole batch."""
        value = self._recorded[node]
        if value._version != self._versions[node]:
            raise UnsupportedError(f"{node.name!r} is overwritten in place behind the graph; write it out of place")
        return value

    def __getitem__(self, node: fx.Node) -> Any:
        """The node's value for the samples that count."""
        if node in self._recorded:
            return self.whole(node) if self.samples is None else self.whole(node)[: self.samples]
        if node not in self._values:
            self._evaluate(node)
        return self._values[node]

    def _evaluate(self, node: fx.Node) -> None:
        # Without recursion: the functional part between two layers may be long.
        stack = [node]
        while stack:
            top = stack[-1]
            missing = [n for n in top.all_input_nodes if n not in self._recorded and n not in self._values]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            if top not in self._values:
                if top.op == "call_module":
                    raise UnsupportedError(f"{top.target} did not run in the recorded forward pass")
                if top.target in DROPOUTS and self.model.training and arguments(top).get("p", 0.5) > 0:
                    raise UnsupportedError(
                        f"nothing keeps what the functional dropout {top.name!r} did in training, since its "
                        f"result goes to no layer directly; use nn.Dropout"
                    )
                with torch.no_grad():
                    self._values[top] = run_node(top, self.model, self)


def run_node(node: fx.Node, model: nn.Module, values: Any) -> Any:
    """Execute one node of the graph on given values of its inputs: never in place, no hooks, no dropout."""
    if node.op == "placeholder":
        raise UnsupportedError(f"no forward pass was recorded for input {node.name!r}")
    if node.op == "get_attr":
        value: Any = model
        for part in str(node.target).split("."):
            value = getattr(value, part)
        return value.detach() if isinstance(value, Tensor) else value
    args = fx.node.map_arg(node.args, lambda n: values[n])
    kwargs = fx.node.map_arg(node.kwargs, lambda n: values[n])
    if node.target in DROPOUTS:
        return args[0]
    if args and isinstance(args[0], Tensor) and overwrites(node, model):
        args = (args[0].clone(), *args[1:])
    if node.op == "call_module":
        return model.get_submodule(str(node.target)).forward(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]
