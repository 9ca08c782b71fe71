"""How much to prune in each layer, found by trying: PuRL's agent and the simple searchers, at equal costs."""

from fewbits.search.reinforcement.evaluator import Evaluation, Evaluator, Spent
from fewbits.search.reinforcement.objective import Targets
from fewbits.search.reinforcement.outcome import Outcome
from fewbits.search.reinforcement.proxy import Proxy, carve
from fewbits.search.reinforcement.run import METHODS, search
from fewbits.search.reinforcement.space import Space

__all__ = ["METHODS", "Evaluation", "Evaluator", "Outcome", "Proxy", "Space", "Spent", "Targets", "carve", "search"]
