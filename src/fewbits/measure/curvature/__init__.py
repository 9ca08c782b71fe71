"""How strongly the loss bends along each weight, channel or layer: traces of the Hessian's diagonal blocks."""

from fewbits.measure.curvature._measure import ESTIMATORS, Curvature, curvature, sensitivity

__all__ = ["ESTIMATORS", "Curvature", "curvature", "sensitivity"]
