"""How much to prune in each layer, found by trying: PuRL's agent and the simple searchers, at equal costs."""

from fewbits.search.layer_rates.evaluator import Evaluation, Evaluator, Spent
from fewbits.search.layer_rates.objective import Targets
from fewbits.search.layer_rates.outcome import Outcome
from fewbits.search.layer_rates.proxy import Proxy, carve
from fewbits.search.layer_rates.run import METHODS, search
from fewbits.search.layer_rates.space import RateSpace

__all__ = ["METHODS", "Evaluation", "Evaluator", "Outcome", "Proxy", "RateSpace", "Spent", "Targets", "carve", "search"]
