"""What is said of an operation that relevance has no rule for."""

from __future__ import annotations

from fewbits.errors import UnsupportedError
from fewbits.measure.relevance._nodes import Node

_CALL = "call the nn.LSTM or nn.GRU module itself, or disable torch.backends.mkldnn and torch.backends.cudnn around it"
_WAYS_OUT = {
    "CompiledFunction": "relevance cannot look into a compiled region: call it on the network before torch.compile, or "
    "on network._orig_mod",
    "CheckpointFunction": "relevance cannot look into a checkpoint that runs its block anew under its own graph: give "
    "torch.utils.checkpoint.checkpoint use_reentrant=False",
    "MkldnnRnnLayer": f"relevance cannot look into a recurrent network that ran as one fused operation: {_CALL}",
    "CudnnRnn": f"relevance cannot look into a recurrent network that ran as one fused operation: {_CALL}",
}


class NoRuleError(UnsupportedError):
    """Relevance arrived at an operation without a rule.

    Attributes:
        node: of the operation, from which its line can be found. place: its place among those of its kind.
    """

    place = 0

    def __init__(self, node: Node, name: str, path: str, *, in_place: bool = False) -> None:
        where = f" in {path}" if path else ""
        known = _WAYS_OUT.get(name)
        if in_place:  # autograd names only the copy
            known = f"no relevance rule for {name} in place on a view{where}; write it out of place"
        super().__init__(
            known
            or f"no relevance rule for the operation {node.name()}{where}; say what it is by operations={{{name!r}: "
            "'linear' | 'elementwise' | 'scale' | a function}, by this name, by its function (torch.exp) or by its "
            "module's class, or let probe=True find out whether it is homogeneous; without relevance there are "
            "assign.method ecq, and other measures such as taylor"
        )
        self.node = node
