"""The initial weights of the deep networks."""

from __future__ import annotations

from torch import nn


def he_normal(model: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / fan_out), in place (He et al. 2015, arXiv:1502.01852, eq. 14).

    torch's own default has a sixth of that variance, with which deep networks without BatchNorm do not train.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
