"""fewbits: trained neural networks as small as they can be, in a file that decodes out.

::

    import fewbits as fb

    small = fb.compress(model, train, evaluate=accuracy, target="200 KB")
    print(small.report)
    small.save("net.few")
    net = fb.load("net.few", like=Net())
"""

from fewbits.codec import decode, encode, inspect
from fewbits.compress import Compressed, compress, load
from fewbits.errors import FewbitsError
from fewbits.plan import Clustered, Dense, Plan
from fewbits.recipe import Recipe
from fewbits.report.report import Report

__all__ = [
    "Clustered",
    "Compressed",
    "Dense",
    "FewbitsError",
    "Plan",
    "Recipe",
    "Report",
    "compress",
    "decode",
    "encode",
    "inspect",
    "load",
]
