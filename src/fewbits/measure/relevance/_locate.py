"""Which line of the source made an operation that has no rule: found only once it is asked for, as asking is slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fewbits.errors import UnsupportedError
from fewbits.measure.relevance._nodes import Node, kind, ordered
from fewbits.measure.relevance._tape import Tape
from fewbits.measure.relevance._unknown import NoRuleError

# Files whose lines say nothing to whoever wrote the network.
_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), "importlib", '"<')


@contextmanager
def located(tape: Tape) -> Iterator[None]:
    """Add the source line to an UnsupportedError of :func:`propagate`, by running the last forward pass once more."""
    try:
        yield
    except NoRuleError as error:
        line = _line(tape, error.node, error.place)
        if line is None:
            raise
        raise UnsupportedError(f"{error} (made at {line})") from None


def _line(tape: Tape, wanted: Node, place: int) -> str | None:
    """``file:number: text`` of the innermost line of a program that is not torch's."""
    path = tape.path_of(wanted)
    args, kwargs = tape.arguments
    again = Tape(tape.model, tape.operations)
    state = torch.get_rng_state()
    try:
        with torch.autograd.set_detect_anomaly(True, check_nan=False), again.watch():
            output = tape.model(*args, **kwargs)
        roots = [t.grad_fn for t in torch.utils._pytree.tree_leaves(output) if getattr(t, "grad_fn", None) is not None]
        for root in roots:
            alike = [node for node in ordered(root) if kind(node) == kind(wanted)]
            for node in alike[place : place + 1] + alike:
                if again.path_of(node) == path:
                    return _innermost(node.metadata.get("traceback_") or [])
    except Exception:  # the first error matters more than where it was
        return None
    finally:
        torch.set_rng_state(state)
    return None


def _innermost(traceback: list[str]) -> str | None:
    for entry in reversed(traceback):
        first, _, rest = entry.strip().partition("\n")
        if first.startswith("File ") and not any(part in first for part in _OURS):
            file, _, number = first.removeprefix('File "').partition('", line ')
            return f"{file}:{number.partition(',')[0]}: {rest.strip().splitlines()[0] if rest.strip() else ''}"
    return None
