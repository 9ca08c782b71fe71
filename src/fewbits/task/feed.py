"""How a batch of any kind becomes the inputs of a network and the targets of a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewbits.errors import DataError, RecipeError
from fewbits.task.batches import Batch, Inputs, described, tensors_in
from fewbits.task.signature import Signature, inside

Part = str | int
Given = Part | Sequence[Part] | Callable[[Any], Any] | None
"""Which part of a batch: a key or place, several of them, or a function of the batch."""

TARGETS = ("labels", "label", "targets", "target", "y")
"""Names of targets in batches with names."""


class Feed:
    """Splits batches: tensors, arrays, tuples, mappings, data classes, named tuples.

    * A tuple: the last part is the target, what is before goes to ``forward`` in order, but for options of it: what has
      a word or a truth value by default.
    * Names: parts go to the parameters of ``forward`` with their names, and ``labels`` (or ``label``, ``targets``,
      ``target``, ``y``) is the target. Other parts are left out, as texts and numbers of samples are, once ``forward``
      has all that it needs. A network of one input takes the only other part, whatever its name.
      transformers' encoder-decoders read ``decoder_input_ids`` from the labels, as with ``labels=`` they do themselves.

    Args:
        model: whose ``forward`` is read.
        inputs, targets: which parts they are, where that is not so: keys, places, or functions of the batch. A function
            for inputs returns a tensor, a tuple (arguments by place) or a dict (arguments by name).
    """

    def __init__(self, model: nn.Module, inputs: Given = None, targets: Given = None) -> None:
        for word, given in (("inputs", inputs), ("targets", targets)):
            several = isinstance(given, tuple | list) and all(isinstance(part, str | int) for part in given)
            if not (given is None or isinstance(given, str | int) or callable(given) or several):
                raise RecipeError(f"{word} is a key, a place, several of them or a function, not {given!r:.60}")
        self.signature, self.given, self.wanted = Signature.of(model), inputs, targets
        self.moved = getattr(inside(model), "prepare_decoder_input_ids_from_labels", None)
        floats = [p.dtype for p in model.parameters() if p.is_floating_point()]
        self.dtype = floats[0] if floats else torch.float32

    def __call__(self, batch: Any) -> Batch:
        """The batch as every room knows it, in tensors, floats of the network's own type.

        Raises:
            DataError: the parts do not fit what ``forward`` takes.
        """
        inputs, targets = self._split(batch)
        found = self.arranged(inputs)
        if next(tensors_in(found), None) is None:
            raise DataError(
                f"there is no tensor among the inputs, {described(inputs)}: give batches as tuples (inputs, targets), "
                "or say inputs= and targets="
            )
        return Batch(found, _as_tensors(targets, None))

    # -- which part is what ------------------------------------------------------------------------------

    def _split(self, batch: Any) -> tuple[Any, Any]:
        if isinstance(batch, Batch):
            return batch.inputs, batch.targets
        named = _names_of(batch)
        if self.given is not None or self.wanted is not None:
            return self._as_told(batch, named)
        if named is not None and (not isinstance(batch, tuple) or self._by_names(named)):
            return self._named(named)
        if isinstance(batch, tuple | list):
            return self._placed(batch)
        return batch, None

    def _by_names(self, named: Mapping[str, Any]) -> bool:
        """Whether a named tuple is meant by its names."""
        return any(name in self.signature.names for name in named) and any(name in TARGETS for name in named)

    def _as_told(self, batch: Any, named: Mapping[str, Any] | None) -> tuple[Any, Any]:
        targets = None if self.wanted is None else _part(batch, named, self.wanted, "targets")
        if self.given is not None:
            found = _part(batch, named, self.given, "inputs")
            chosen = not callable(self.given) and not isinstance(self.given, str | int)
            if chosen and not set(self.given) <= set(self.signature.names):  # type: ignore[arg-type]
                found = tuple(found.values()) if isinstance(found, dict) else found  # by place, in the order given
            return found, targets
        if named is not None and not callable(self.wanted):
            gone = {self.wanted} if isinstance(self.wanted, str | int) else set(self.wanted or ())
            inputs, _ = self._named({k: v for k, v in named.items() if k not in gone}, target=False)
            return self._with_decoder(inputs, targets), targets
        if isinstance(batch, tuple | list) and isinstance(self.wanted, int):
            at = self.wanted % len(batch)
            rest = [part for i, part in enumerate(batch) if i != at]
            return rest[0] if len(rest) == 1 else self._places(rest, batch), targets
        raise DataError("which part of a batch are the inputs? Give inputs= beside targets=")

    def _placed(self, batch: Sequence[Any]) -> tuple[Any, Any]:
        if not batch:
            raise DataError("an empty tuple is no batch; give tuples (inputs, targets)")
        if len(batch) == 1:
            return batch[0], None
        *heads, targets = batch
        return (heads[0] if len(heads) == 1 else self._places(heads, batch)), targets

    def _places(self, heads: Sequence[Any], batch: Sequence[Any]) -> tuple[Any, ...]:
        if not self.signature.takes(len(heads), told=False):
            raise DataError(
                f"a batch has {len(batch)} parts, {described(tuple(batch))}, and {self.signature}: say which are what, "
                "for example inputs=0, targets=1"
            )
        return tuple(heads)

    def _named(self, named: Mapping[str, Any], *, target: bool = True) -> tuple[Any, Any]:
        if not named:
            raise DataError("a batch without parts is none; give tuples (inputs, targets), or dicts with both")
        names = [name for name in TARGETS if name in named] if target else []
        targets = named[names[0]] if names else None
        rest = {name: part for name, part in named.items() if name not in names[:1]}
        fit = rest if self.signature.names_any and not self.signature.required else {}
        fit = fit or {name: part for name, part in rest.items() if name in self.signature.names}
        missing = [name for name in self.signature.required if name not in fit]
        if fit and not missing:
            return (self._with_decoder(fit, targets) if target else fit), targets
        if len(rest) == 1 and len(self.signature.required) <= 1:
            return next(iter(rest.values())), targets
        raise DataError(
            f"a batch has the parts {', '.join(map(repr, named))}, and {self.signature}: say which are what, for "
            f"example inputs={next(iter(rest), 'x')!r}, targets={(names or list(named))[-1]!r}"
        )

    def _with_decoder(self, fit: Any, targets: Any) -> Any:
        """With what a decoder reads: the labels, moved by a place."""
        if self.moved is None or targets is None or "decoder_input_ids" not in self.signature.names:
            return fit
        if not isinstance(fit, dict) or {"decoder_input_ids", "decoder_inputs_embeds"} & fit.keys():
            return fit
        return fit | {"decoder_input_ids": self.moved(labels=_as_tensors(targets, None))}

    # -- as the network takes them -----------------------------------------------------------------------

    def arranged(self, inputs: Any) -> Any:
        """Inputs as the network takes them: one tensor, or :class:`Inputs`."""
        if isinstance(inputs, Inputs):
            return Inputs(_as_tensors(inputs.args, self.dtype), _as_tensors(inputs.kwargs, self.dtype))
        several = len(self.signature.required) > 1 or (self.given is not None and not isinstance(self.given, str | int))
        if isinstance(inputs, Mapping):
            found = _as_tensors(dict(inputs), self.dtype)
            spread = all(name in self.signature.names or self.signature.names_any for name in found)
            return Inputs((), found) if spread else Inputs((found,), {})
        whole = not several and hasattr(inputs, "_fields")  # a named tuple, as packed sequences are
        if (isinstance(inputs, tuple) and not whole) or (isinstance(inputs, list) and several):
            found = _as_tensors(tuple(inputs), self.dtype)
            if several or len(found) != 1:
                return Inputs(found, {}) if self.signature.takes(len(found)) else Inputs((found,), {})
            return found[0]
        found = _as_tensors(inputs, self.dtype)
        return found if isinstance(found, Tensor) else Inputs((found,), {})


def _names_of(batch: Any) -> Mapping[str, Any] | None:
    """The parts by name of what has names."""
    if isinstance(batch, Mapping):
        return batch
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    if isinstance(batch, tuple) and hasattr(batch, "_asdict"):
        return dict(batch._asdict())
    return None


def _part(batch: Any, named: Mapping[str, Any] | None, which: Given, word: str) -> Any:
    if callable(which):
        try:
            return which(batch)
        except Exception as error:
            found = " ".join(str(error).split())[:300]
            raise DataError(
                f"the function {word}= fails on a batch, {described(batch)}: {type(error).__name__}: {found}"
            ) from error
    if not isinstance(which, str | int):
        assert which is not None
        parts = {key: _part(batch, named, key, word) for key in which}
        return parts if parts and all(isinstance(key, str) for key in which) else tuple(parts.values())
    try:
        return named[which] if named is not None and isinstance(which, str) else batch[which]
    except (KeyError, IndexError, TypeError):
        known = ", ".join(map(repr, named)) if named is not None else described(batch)
        raise DataError(f"{word}={which!r}: a batch has no such part; it has {known}") from None


def _as_tensors(value: Any, floats: torch.dtype | None) -> Any:
    """Arrays and numbers as tensors, in the structure that they are in.

    Args:
        floats: type of all floating-point tensors; ``None`` leaves types alone.
    """
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
        array = np.ascontiguousarray(value)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        value = torch.from_numpy(array if array.flags.writeable else array.copy()).reshape(np.shape(value))
    if isinstance(value, Tensor):
        other = floats is not None and value.is_floating_point() and value.dtype != floats
        return value.to(floats) if other else value
    if isinstance(value, Mapping):
        return {key: _as_tensors(part, floats) for key, part in value.items()}
    if isinstance(value, tuple | list):
        if value and all(isinstance(part, int | float) for part in value):
            return torch.tensor(value)
        found = [_as_tensors(part, floats) for part in value]
        if hasattr(value, "_fields"):
            return type(value)(*found)
        return type(value)(found) if type(value) in (tuple, list) else value
    return value
