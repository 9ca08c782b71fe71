"""How much to prune in each layer, found by trying: PuRL's agent and the simple searchers, at equal costs."""

from fewbits.search.layer_rates._evaluator import Evaluation, Evaluator, Spent
from fewbits.search.layer_rates._objective import Targets
from fewbits.search.layer_rates._outcome import Outcome
from fewbits.search.layer_rates._proxy import Proxy, carve
from fewbits.search.layer_rates._space import RateSpace
from fewbits.search.layer_rates.run import METHODS, search

__all__ = ["METHODS", "Evaluation", "Evaluator", "Outcome", "Proxy", "RateSpace", "Spent", "Targets", "carve", "search"]
