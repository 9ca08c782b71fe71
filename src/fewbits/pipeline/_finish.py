"""The end of a run: the plan that is written, the file, the check that it decodes, and the report."""

from __future__ import annotations

import hashlib
from typing import Any

from fewbits import codec
from fewbits.attach.attach import counters
from fewbits.pipeline._candidates import Candidates
from fewbits.pipeline._compressed import Compressed
from fewbits.pipeline._final import Final
from fewbits.pipeline._rounds import Rounds
from fewbits.pipeline._words import words_of
from fewbits.plan import Plan
from fewbits.recipe import Recipe
from fewbits.report.report import Report
from fewbits.report.sizes import float_bytes, general_purpose, kind_of, rest_rows, tensor_rows
from fewbits.train.hold import QATCallback
from fewbits.weights import aliases, parameters_of, uncompressed


def finish(rounds: Rounds, qat: QATCallback, train: Any, seconds: float) -> Compressed:
    """Choose the plan, write it to bytes, decode them again, and say what came out.

    Raises:
        BudgetError: no file is as small as the target.
    """
    recipe, candidates, before = rounds.recipe, rounds.candidates, rounds.before
    search = Final(rounds, qat)
    plan, data, accuracy = search.choose()
    left_out = counters(candidates.full) | set(aliases(candidates.full))
    original = {n: t for n, t in candidates.full.state_dict().items() if n not in left_out}
    report = Report(
        model=candidates.name,
        data=recipe.data.called if recipe.data else "",
        method=words_of(recipe),
        float_bytes=float_bytes(original),
        parameters=parameters_of(candidates.full),
        others=general_purpose(original, plan),
        accuracy_before=before,
        accuracy_after=accuracy,
        identical=candidates.identical(plan, data, train),
        target=recipe.target_bytes,
        max_drop=recipe.max_drop,
        met=met(recipe, len(data), before, accuracy),
        seed=recipe.seed,
        steps=qat.steps,
        seconds=seconds,
        history=tuple(rounds.history),
        search=tuple(search.tries),
        kind=kind_of(plan),
        recipe=recipe.model_dump(by_alias=True, exclude_defaults=True),
        **tables_of(candidates, plan, data),
    )
    return Compressed(plan, data, report, candidates.base)


def tables_of(candidates: Candidates, plan: Plan, data: bytes) -> dict[str, Any]:
    """What a report says of a file: its size, and where its bytes are."""
    sizes = {section.name: section.coded_bytes for section in codec.inspect(data, candidates.base).tensors}
    rows = tensor_rows(plan, sizes)
    return {
        "tensors": rows,
        "file_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "floats_bytes": len(data) - sum(row.bytes for row in rows),
        "rest": rest_rows(plan, sizes, uncompressed(candidates.full, plan.compressed)),
    }


def met(recipe: Recipe, size: int, before: float | None, accuracy: float | None) -> bool | None:
    """Whether the recipe's budget is kept; ``None`` without one."""
    target, drop = recipe.target_bytes, recipe.max_drop
    if target is None and drop is None:
        return None
    within = drop is None or (accuracy is not None and before is not None and accuracy >= before - drop)
    return within and (target is None or size <= target)
