"""Cheaper operations in place of the network's own, before anything is done to its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from math import isfinite
from typing import Any

from accelerate.utils import broadcast_object_list, send_to_device
from torch import nn

from fewbits import codec
from fewbits.approximation import Approximation, approximations_of
from fewbits.errors import RecipeError
from fewbits.ops.choose import chosen
from fewbits.ops.fit import fit
from fewbits.ops.places import FAMILIES, Place, measure, places
from fewbits.ops.swap import swap
from fewbits.pipeline.stages._work import Context, Work
from fewbits.plan import Plan
from fewbits.report.report import OperationRow
from fewbits.task import Fed
from fewbits.task.stream import NoBatches
from fewbits.train.loop import batches_of, endless

BATCHES = 8  # on which ranges and errors are measured


class Swap:
    """Fits what the recipe's section ``ops`` asks for on the first batches, and lets the network compute with it."""

    def run(self, work: Work, context: Context) -> Work:
        """The work on a network that computes by approximations, and what they cost in accuracy, place by place.

        Raises:
            RecipeError: an operation that the network does not call, or an approximation that cannot be.
        """
        kept = context.store.get("swap")
        if kept is None:
            found, rows = self._made(work, context)
            agreed = [(found, rows)]
            broadcast_object_list(agreed)  # rounding of ranges must not lead to different networks
            found, rows = agreed[0]
            data = codec.encode(Plan({}, approximations=found))
            context.store.put("swap", {"data": data, "rows": [asdict(row) for row in rows]})
        else:
            found = codec.decode(kept["data"], like={}).approximations
            rows = tuple(OperationRow(**row) for row in kept["rows"])
        model = copy.deepcopy(work.model)
        swap(model, approximations_of(model) | found)
        return replace(work, model=model, operations=rows)

    def _made(self, work: Work, context: Context) -> tuple[dict[str, Approximation], tuple[OperationRow, ...]]:
        asked = {name: part.model_dump() for name, part in work.recipe.ops.items()}
        model = copy.deepcopy(work.model).eval()
        swap(model, {})  # ranges are those of the network's own operations
        if isinstance(work.train.loader if isinstance(work.train, Fed) else work.train, NoBatches):
            made = {one: fit(one, **options) for name, options in asked.items() for one in FAMILIES.get(name, (name,))}
            return made, tuple(OperationRow("", name, str(one), **_bound(one)) for name, one in made.items())
        inputs = list(self._inputs(work, context))
        known = places(model, inputs)
        try:
            found = chosen(asked, known)
        except RecipeError as error:
            raise RecipeError(f"{error}{_hidden(model)}") from None
        measure(model, inputs, known, found)
        own = [place for place in known if place.operation in found]
        return found, tuple(_row(place, found[place.operation]) for place in own)

    def _inputs(self, work: Work, context: Context) -> Iterator[Any]:
        for batch in islice(endless(work.train), min(BATCHES, batches_of(work.train))):  # of the first epoch
            yield send_to_device(batch[0], context.accelerator.device)


def _hidden(model: nn.Module) -> str:
    """What computes operations that nobody outside of it sees."""
    paths = [path for path, module in model.named_modules() if isinstance(module, nn.RNNBase)]
    if not paths:
        return ""
    return f" (recurrent layers such as {paths[0]} compute theirs inside of torch, where nothing can be swapped)"


def _row(place: Place, found: Approximation) -> OperationRow:
    seen = place.low <= place.high
    low, high = (place.low, place.high) if seen else (None, None)
    return OperationRow(
        place.path, place.operation, str(found), low, high, **_bound(found, low, high), error=place.error
    )


def _bound(found: Approximation, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """The bound, of a place whose numbers leave the domain also that beyond it."""
    bound = found.bound
    if found.pieces is not None and not found.reduced and low is not None and high is not None:
        first, last = (end * found.units[0] for end in found.pieces.domain)
        slack = 0.5 * found.units[0] if found.kind == "integer" else 0.0
        if low < first - slack or high > last + slack:
            bound = max(bound, found.outside)
    return {"bound": bound if isfinite(bound) else None, "relative": found.relative}
