"""Every rule by the name that a recipe gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fewbits.errors import RecipeError, did_you_mean
from fewbits.train.rules._backprop import backprop
from fewbits.train.rules._direct_feedback import direct_feedback_alignment
from fewbits.train.rules._direct_targets import direct_difference_target_propagation
from fewbits.train.rules._dual_propagation import dual_propagation
from fewbits.train.rules._equilibrium import equilibrium_propagation
from fewbits.train.rules._feedback_alignment import feedback_alignment
from fewbits.train.rules._forward_forward import forward_forward, scff
from fewbits.train.rules._forward_gradient import forward_gradient
from fewbits.train.rules._hebbian import hebbian
from fewbits.train.rules._mono_forward import mono_forward
from fewbits.train.rules._options import checked
from fewbits.train.rules._predictive import predictive_coding
from fewbits.train.rules._rule import Rule
from fewbits.train.rules._sign_symmetry import sign_symmetry
from fewbits.train.rules._soft_hebb import soft_hebb
from fewbits.train.rules._target_propagation import difference_target_propagation


@checked("backprop")
def _backprop() -> Rule:
    return backprop


RULES: dict[str, Callable[..., Rule]] = {
    "backprop": _backprop,
    "hebbian": hebbian,
    "soft-hebb": soft_hebb,
    "mono-forward": mono_forward,
    "forward-forward": forward_forward,
    "scff": scff,
    "feedback-alignment": feedback_alignment,
    "direct-feedback-alignment": direct_feedback_alignment,
    "sign-symmetry": sign_symmetry,
    "difference-target-propagation": difference_target_propagation,
    "direct-difference-target-propagation": direct_difference_target_propagation,
    "predictive-coding": predictive_coding,
    "dual-propagation": dual_propagation,
    "equilibrium-propagation": equilibrium_propagation,
    "forward-gradient": forward_gradient,
}
"""Factories by name, called with options. A row more is a rule more; ``tests/contract`` runs over all of them."""

OWN_STEPS = frozenset({"hebbian", "soft-hebb"})
"""Rules that know how far to go: SGD with a learning rate of 1, held constant and without momentum, applies them."""

FEATURES = frozenset({"hebbian", "soft-hebb", "scff"})
"""Rules whose hidden layers learn without targets: a readout of what they learnt is to follow."""


def rule_of(name: str, options: Mapping[str, Any] | None = None) -> Rule:
    """A rule by its name.

    Raises:
        RecipeError: no such rule or option, or an impossible one.
    """
    if name not in RULES:
        raise RecipeError(f"no rule {name!r}{did_you_mean(name, RULES)} (there are {', '.join(RULES)})")
    return RULES[name](**(options or {}))
