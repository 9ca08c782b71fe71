"""Curvature of the loss per weight, channel or layer, by one function with a stated error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.attach import evaluating
from fewbits.errors import DataError, MismatchError, NonFiniteError, RecipeError, did_you_mean
from fewbits.measure.curvature._hutchinson import PRECISIONS, Probes, by_channel, by_probes
from fewbits.measure.curvature._moments import Moments, OverDraws, OverSamples
from fewbits.measure.curvature.gradients import Passes, by_gradients
from fewbits.weights import channel_axes, select

PER = ("channel", "weight", "layer")
ESTIMATORS = ("sketched", "sampled", "exact", "hutchinson", "empirical")


@dataclass(frozen=True, eq=False)
class Curvature:
    """Traces of diagonal blocks of the Hessian (or Gauss-Newton matrix) of the mean cross-entropy.

    Attributes:
        trace: by weight name: ``[O]`` per channel, the weight's shape per weight, ``[]`` per layer.
        error: standard error of each entry, same shapes. Exact traces have 0, a single probe NaN.
        per, estimator: as asked for.
        samples: how many the batches had.
        draws: random passes behind each batch; 1 where nothing is drawn.
        axes: by weight name, the dimension of its channels: 1 for transformers' ``Conv1D``, else 0.
    """

    trace: dict[str, Tensor]
    error: dict[str, Tensor]
    per: str
    estimator: str
    samples: int
    draws: int
    axes: Mapping[str, int]


def curvature(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    per: str = "channel",
    estimator: str = "sketched",
    draws: int | None = None,
    precision: str = "float32",
    include: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    workspace: int = 1 << 22,
    seed: int = 0,
) -> Curvature:
    """Trace of each diagonal block of the curvature of the mean cross-entropy, in evaluation mode.

    With logits ``z_n``, their Jacobian ``J_n`` in the weights, ``p_n = softmax(z_n)`` and
    ``S_n = diag(p_n) - p_n p_n^T``, the Gauss-Newton matrix is ``mean_n J_n^T S_n J_n``. It is the Fisher information
    of the model's own labels (Martens 2020, arXiv 1412.1193), never negative, and **equal to the Hessian in every
    block within one layer** where the logits are piecewise linear in the weights of that layer alone: linear and
    convolutional layers each used once, ReLU-like activations, max and average pooling, sums, and normalisation
    in evaluation mode. In other networks (GELU, attention, layer normalisation, a layer used twice) it is an
    approximation of the Hessian.

    Estimators:
        * ``"sketched"``: one first-order pass back per draw (default 1), in which random signs mix the columns of a
          root of S_n. Unbiased for Gauss-Newton, and exact for samples that waver between two classes (ours).
        * ``"sampled"``: squared gradients of single samples with labels drawn from p_n, as many passes. Unbiased for
          Gauss-Newton, too, but of confident samples only the rare surprising label counts.
        * ``"exact"``: Gauss-Newton without any sampling; one pass back less than classes.
        * ``"hutchinson"``: the Hessian, ``draws`` probes per batch (default 50), as HAP (arXiv 2101.08940) and EHAP
          (arXiv 2306.07030) do; takes any network. ``precision`` is float32, bfloat16 or float16; the scale that
          float16 needs is divided out again.
        * ``"empirical"``: squared gradients with the given labels. Biased, since a network that fits its data seems
          flat; only for comparison.

    The stated error comes from the spread over draws, of each sample or (probes, and per weight) of each batch: it is
    the error against the exact trace of these samples. A single draw has no such spread; then it comes from the
    spread over samples, which is the error against the distribution that the samples came from, and no less than the
    other on average. A single probe has none (NaN).

    Args:
        model: a classifier with ``[n, classes]`` scores; with or without a plan attached.
        batches: inputs and class indices, as :class:`fewbits.task.Feed` splits them; the result streams over them.
        per: ``"channel"`` (the weights of an output, which are a row, and in transformers' ``Conv1D`` a column; rows
            of everything else), ``"weight"`` or ``"layer"``.
        draws: passes per batch: sets of signs, labels, or probes.
        precision: of Hutchinson's passes.
        include, exclude: patterns of weight names, see :func:`fewbits.weights.select`.
        workspace: bytes of temporary tensors for single gradients, which are taken in chunks of samples.
        seed: of signs, labels or probes; the same on every device.

    Raises:
        RecipeError: an option out of range. DataError: no samples, or targets that do not fit.
        SelectionError: a pattern without a match. UnsupportedError: a layer whose single-sample gradients cannot be
            told (all but Hutchinson). NonFiniteError: NaN or infinity.
    """
    draws = _checked(per, estimator, draws, precision, workspace)
    generator = torch.Generator().manual_seed(seed)
    # Inside, a weight that carries a plan is one tensor in every forward pass.
    with evaluating(model), torch.enable_grad():
        weights = select(model, include, exclude)
        axes = dict.fromkeys(weights, 0) | {name: axis for name, axis in channel_axes(model).items() if name in weights}
        frozen = [w for w in weights.values() if not w.requires_grad]
        for w in frozen:
            w.requires_grad_(True)
        try:
            if estimator == "hutchinson":
                probed = {name: OverDraws(_shape(w, per, axes[name]), w.device) for name, w in weights.items()}
                probes = Probes(draws, precision, generator)
                samples = by_probes(model, weights, batches, probed, probes, per=per, axes=axes)
                moments: dict[str, Moments] = {**probed}
            else:
                kind = OverDraws if draws > 1 else OverSamples
                moments = {name: kind(_shape(w, per, axes[name]), w.device) for name, w in weights.items()}
                passes = Passes(estimator, draws, generator)
                samples = by_gradients(model, weights, batches, moments, passes, per=per, workspace=workspace)
        finally:
            for w in frozen:
                w.requires_grad_(False)
    if samples == 0:
        raise DataError("curvature needs at least one sample; the batches are empty")
    trace, error = {}, {}
    for name, w in weights.items():
        found = moments[name]
        dtype = torch.promote_types(w.dtype, torch.float32)
        trace[name] = found.mean(samples).to(dtype)
        error[name] = torch.zeros_like(trace[name]) if estimator == "exact" else found.error(samples).to(dtype)
        if not bool(torch.isfinite(trace[name]).all()):
            raise NonFiniteError(f"{name}: the curvature is NaN or infinite")
    return Curvature(trace, error, per, estimator, samples, draws, axes)


def sensitivity(found: Curvature, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What zeroing an entry costs: ``Omega_c = tr H_cc / (2 p_c) ||w_c||^2``, p_c weights in entry c.

    Of HAP (arXiv 2101.08940) and EHAP (arXiv 2306.07030), per channel; per weight it is ``h w^2 / 2``.

    Returns:
        One number per entry, the shapes of ``found.trace``.

    Raises:
        MismatchError: ``weights`` lacks a measured name.
    """
    costs = {}
    for name, trace in found.trace.items():
        w = _given(weights, name).to(trace.dtype)
        if found.per == "channel":
            entries = by_channel(w, found.axes[name])
        else:
            entries = w.unsqueeze(-1) if found.per == "weight" else w.flatten()
        costs[name] = trace / (2 * entries.shape[-1]) * entries.square().sum(-1)
    return costs


def _given(weights: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in weights:
        raise MismatchError(f"curvature was measured for {name!r}, which the weights lack{did_you_mean(name, weights)}")
    return weights[name].detach()


def _checked(per: str, estimator: str, draws: int | None, precision: str, workspace: int) -> int:
    """The number of draws, after all options were found possible."""
    for word, value, valid in (
        ("per", per, PER),
        ("estimator", estimator, ESTIMATORS),
        ("precision", precision, tuple(PRECISIONS)),
    ):
        if value not in valid:
            raise RecipeError(f"{word} must be one of {', '.join(valid)}, got {value!r}{did_you_mean(value, valid)}")
    if precision != "float32" and estimator != "hutchinson":
        raise RecipeError(f"precision {precision!r} is for estimator 'hutchinson', not for {estimator!r}")
    if draws is not None and estimator in ("exact", "empirical"):
        raise RecipeError(f"estimator {estimator!r} draws nothing; leave draws out")
    if draws is not None and (not isinstance(draws, int) or draws < 1):
        raise RecipeError(f"draws must be a whole number of at least 1, got {draws}")
    if workspace < 1:
        raise RecipeError(f"workspace must be at least 1 byte, got {workspace}")
    return draws or (50 if estimator == "hutchinson" else 1)


def _shape(weight: Tensor, per: str, axis: int) -> torch.Size:
    channels = weight.shape[axis : axis + 1]
    return weight.shape if per == "weight" else channels if per == "channel" else torch.Size()
