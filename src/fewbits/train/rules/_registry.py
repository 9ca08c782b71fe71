"""Every rule by the name that a recipe gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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


class Row(NamedTuple):
    """A rule that recipes can name.

    Attributes:
        make: its factory, called with options.
        own_steps: whether it knows how far to go: SGD with a learning rate of 1, held constant and without momentum,
            applies it.
        features: whether its hidden layers learn without targets: a readout of what they learnt is to follow.
        whole_loss: whether its directions are those of all that is in the loss of a batch, a penalty on weights or a
            second pass among it.
    """

    make: Callable[..., Rule]
    own_steps: bool = False
    features: bool = False
    whole_loss: bool = False


RULES: dict[str, Row] = {
    "backprop": Row(_backprop, whole_loss=True),
    "hebbian": Row(hebbian, own_steps=True, features=True),
    "soft-hebb": Row(soft_hebb, own_steps=True, features=True),
    "mono-forward": Row(mono_forward),
    "forward-forward": Row(forward_forward),
    "scff": Row(scff, features=True),
    "feedback-alignment": Row(feedback_alignment, whole_loss=True),
    "direct-feedback-alignment": Row(direct_feedback_alignment),
    "sign-symmetry": Row(sign_symmetry, whole_loss=True),
    "difference-target-propagation": Row(difference_target_propagation),
    "direct-difference-target-propagation": Row(direct_difference_target_propagation),
    "predictive-coding": Row(predictive_coding),
    "dual-propagation": Row(dual_propagation),
    "equilibrium-propagation": Row(equilibrium_propagation),
    "forward-gradient": Row(forward_gradient),
}
"""By name. A row more is a rule more; ``tests/contract`` runs over all of them."""


def rule_of(name: str, options: Mapping[str, Any] | None = None) -> Rule:
    """A rule by its name.

    Raises:
        RecipeError: no such rule or option, or an impossible one.
    """
    if name not in RULES:
        raise RecipeError(f"no rule {name!r}{did_you_mean(name, RULES)} (there are {', '.join(RULES)})")
    return RULES[name].make(**(options or {}))
