"""zennit without torchvision, as a second opinion on relevance. Only tests use it."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from torch import nn


def load() -> ModuleType:
    """zennit; skips the test where it is not installed."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # or it is of another build of torch
        # zennit's only use of torchvision are two classes that its rewriting of ResNets looks for.
        names = ("torchvision", "torchvision.models", "torchvision.models.resnet")
        stubs = {name: ModuleType(name) for name in names}
        for name in ("BasicBlock", "Bottleneck"):
            setattr(stubs["torchvision.models.resnet"], name, type(name, (nn.Module,), {}))
        stubs["torchvision"].models = stubs["torchvision.models"]
        stubs["torchvision.models"].resnet = stubs["torchvision.models.resnet"]
        sys.modules.update(stubs)
        try:
            return pytest.importorskip("zennit", reason="zennit, the oracle for relevance, is not installed")
        finally:
            for name in names:
                del sys.modules[name]
    return pytest.importorskip("zennit", reason="zennit, the oracle for relevance, is not installed")
