"""The cheapest approximation of an operation that keeps an error, or the best one of a given size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from fewbits.approximation import KINDS, MOST_BITS, MOST_DEGREE, MOST_PIECES, OPERATIONS, Approximation, Pieces
from fewbits.errors import RecipeError, did_you_mean
from fewbits.ops import _integer as integer
from fewbits.ops import _proof as proof
from fewbits.ops._functions import CORES, FUNCTIONS, Function
from fewbits.ops._make import Outside, continued, pieced, table
from fewbits.ops._minimax import best_knots, knots_for
from fewbits.ops._reduced import inherited

EVEN = 64  # pieces up to which all are made equally good once their number is known
PLACES = 256  # of a table, where the cheapest form is looked for: more do not stay in a cache beside other data


def fit(
    operation: str,
    domain: tuple[float, float] | None = None,
    *,
    kind: str | None = None,
    error: float | None = None,
    pieces: int | None = None,
    degree: int | None = None,
    bits: int | None = None,
    outside: Outside | None = None,
) -> Approximation:
    """An approximation of an operation, with a bound that is computed from its own numbers.

    Args:
        operation: one of ``OPERATIONS``, such as ``"gelu"``.
        domain: where the bound holds; default: a usual one, ``[-8, 8]`` for GELU. Without one, ``exp``, ``log``,
            ``reciprocal`` and ``rsqrt`` are split into a power of two and a rest, as softmax and normalisation always
            are; their bound then holds for all normal float32 numbers.
        kind: ``lines`` with free knots, a ``polynomial``, a ``table`` with interpolation, ``integer``, or a replacement
            without a bound (``squared-relu``; ``relu`` for softmax). Default: what the other arguments say; with
            ``error`` alone, the one of fewest steps for a value (comparisons, multiplications, additions), among tables
            of at most 256 places.
        error: the largest that is allowed inside the domain. pieces: of lines or of a table. degree: of a polynomial,
            with ``pieces`` of each of several. bits: of integers.
        outside: beyond the domain ``continue`` on the line that the function approaches (else the tangent at the end),
            ``clamp``, or ``error``. Default: ``continue`` where it approaches lines on both sides, else ``error``.
            Integers clamp.

    Raises:
        RecipeError: unknown words, arguments that do not go together, or an error that no form of the kind keeps.
    """
    check(operation, domain, kind, error, pieces, degree, bits)
    kind = kind or _meant(error, pieces, degree, bits)
    if kind is None:
        assert error is not None
        return _cheapest(operation, domain, error, outside)
    if kind in KINDS[4:]:
        return Approximation(operation, kind)
    reduced = operation in CORES and (domain is None or operation in MOST_BITS)
    if kind == "integer":
        if bits is None:
            raise RecipeError(f"{operation}: kind integer needs bits, for example bits: 8")
        if operation in MOST_BITS:
            return integer.whole(operation, bits, domain)
        if reduced:
            raise RecipeError(f"{operation}: integers need a domain")
        return integer.lines(FUNCTIONS[operation], _ordered(operation, domain), bits)
    function = FUNCTIONS[CORES[operation] if reduced else operation]
    ends = function.domain if reduced else _ordered(operation, domain)
    wanted = None if error is None else _core_error(operation, error) if reduced else error
    made = _pieces(function, ends, kind, wanted, pieces, degree)
    made = continued(function, made, "clamp" if reduced else outside)
    core = proof.bound(function, made)
    found = Approximation(operation, kind, made, reduced, bound=core, outside=_beyond(function, made))
    return inherited(found) if reduced else found


def _beyond(function: Function, made: Pieces) -> float:
    return max(proof.beyond(function, made, "left"), proof.beyond(function, made, "right"))


def check(
    operation: str,
    domain: tuple[float, float] | None = None,
    kind: str | None = None,
    error: float | None = None,
    pieces: int | None = None,
    degree: int | None = None,
    bits: int | None = None,
    outside: Outside | None = None,
) -> None:
    """Raise RecipeError for arguments of :func:`fit` that no domain makes possible."""
    known = [name for name in OPERATIONS if name != "exp2"]
    if operation not in (*known, "exp2"):
        raise RecipeError(f"no operation {operation!r}{did_you_mean(operation, known)}; there are {', '.join(known)}")
    if kind is not None and kind not in KINDS:
        raise RecipeError(f"{operation}: no kind {kind!r}{did_you_mean(kind, KINDS)}; there are {', '.join(KINDS)}")
    if (kind == "relu" and operation != "softmax") or (kind == "squared-relu" and operation in CORES):
        other = "squared-relu" if kind == "relu" else "relu, which is for softmax"
        raise RecipeError(f"{operation}: no kind {kind!r}; squared-relu is for activations, relu for softmax ({other})")
    given = {"error": error, "pieces": pieces, "degree": degree, "bits": bits}
    said = [name for name, value in given.items() if value is not None]
    taken = {"lines": ("error", "pieces"), "table": ("error", "pieces"), "polynomial": ("error", "degree", "pieces")}
    taken |= {"integer": ("bits",), "squared-relu": (), "relu": ()}
    for name in said:
        if kind is not None and name not in taken[kind]:
            goes = ", ".join(taken[kind]) or "nothing more"
            raise RecipeError(f"{operation}: kind {kind} takes {goes}, and no {name}: leave it out")
    if not said and kind not in KINDS[4:]:
        raise RecipeError(f"{operation}: say error, pieces, degree or bits, for example error: 1e-3")
    if error is not None and (degree is not None or pieces is not None or bits is not None):
        raise RecipeError(f"{operation}: give an error, or a size ({', '.join(said[1:])}), not both")
    if bits is not None and (degree is not None or pieces is not None):
        raise RecipeError(f"{operation}: bits say all of integers: leave {', '.join(said[:-1])} out")
    if error is not None and not (math.isfinite(error) and error > 0):
        raise RecipeError(f"{operation}: error is a positive number, got {error!r}")
    most = MOST_BITS.get(operation, 12)
    sizes = (("pieces", pieces, 1, MOST_PIECES), ("degree", degree, 1, MOST_DEGREE), ("bits", bits, 2, most))
    for name, value, low, high in sizes:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
            raise RecipeError(f"{operation}: {name} is a whole number from {low} to {high}, got {value!r}")
    if domain is not None:
        _ordered(operation, domain)


def _ordered(operation: str, domain: tuple[float, float] | None) -> tuple[float, float]:
    """The domain in float32, outwards."""
    low = FUNCTIONS[operation].low if operation in FUNCTIONS else -math.inf
    given = FUNCTIONS[operation].domain if domain is None else domain
    try:
        a, b = (float(end) for end in given)
    except (TypeError, ValueError):
        raise RecipeError(f"{operation}: a domain is two numbers, got {domain!r}") from None
    if not (math.isfinite(a) and math.isfinite(b) and a < b and max(abs(a), abs(b)) < 1e30):
        raise RecipeError(f"{operation}: a domain is two finite numbers, the smaller first, got {domain!r}")
    if not a > low:
        raise RecipeError(f"{operation} is approximated above {low:g} only, got the domain {domain!r}")
    first, last = np.float32(a), np.float32(b)
    first = np.nextafter(first, np.float32(-np.inf)) if float(first) > a else first
    last = np.nextafter(last, np.float32(np.inf)) if float(last) < b else last
    return float(first), float(last)


def _meant(error: float | None, pieces: int | None, degree: int | None, bits: int | None) -> str | None:
    if bits is not None:
        return "integer"
    if degree is not None:
        return "polynomial"
    return "lines" if pieces is not None else None


def _cheapest(
    operation: str, domain: tuple[float, float] | None, error: float, outside: Outside | None
) -> Approximation:
    found, reasons = [], []
    for kind in ("lines", "table", "polynomial"):
        try:
            made = fit(operation, domain, kind=kind, error=error, outside=outside)
        except RecipeError as refused:
            reasons.append(str(refused))
            continue
        assert made.pieces is not None
        if kind != "table" or len(made.pieces.coefficients) <= PLACES:
            found.append(made)
    if not found:
        raise RecipeError("; ".join(reasons))
    return min(found, key=lambda a: (a.work, a.pieces.numbers if a.pieces else 0))


def _core_error(operation: str, error: float) -> float:
    """What is allowed of the core, so that the whole keeps an error: the bound of the whole grows with that of it."""
    low, high = 1e-9, 0.2
    for _ in range(60):
        middle = math.sqrt(low * high)
        tried = Approximation(operation, "lines", ONE, True, bound=middle)
        low, high = (middle, high) if inherited(tried).bound <= error else (low, middle)
    return low


ONE = Pieces((0.0, 1.0), ((0.0,),))


def _pieces(
    function: Function,
    domain: tuple[float, float],
    kind: str,
    error: float | None,
    pieces: int | None,
    degree: int | None,
) -> Pieces:
    makers: dict[str, Callable[[int], Pieces]] = {
        "lines": lambda n: pieced(function, best_knots(function, domain, 1, n), 1),
        "table": lambda n: table(function, domain, n),
        "polynomial": lambda d: pieced(function, best_knots(function, domain, d, pieces or 1), d),
    }
    make = makers[kind]
    if error is None:
        size = degree if kind == "polynomial" else pieces
        if size is None:
            raise RecipeError(f"{function.name}: kind {kind} needs {'degree' if kind == 'polynomial' else 'pieces'}")
        return make(size)
    most = MOST_DEGREE if kind == "polynomial" else MOST_PIECES
    rounded = proof.UNIT * float(np.abs(function(np.linspace(*domain, 33))).max())  # of the result alone
    for made in _tried(function, domain, kind, error, make, most) if error > rounded else ():
        if proof.bound(function, made) <= error:
            count = len(made.coefficients)
            return make(count) if kind == "lines" and 1 < count <= EVEN else made
    what = f"at most {most} {'degrees' if kind == 'polynomial' else 'pieces'} in float32"
    raise RecipeError(f"{function.name} by {kind} keeps no error of {error:g} with {what}: allow more, or another kind")


def _tried(
    function: Function,
    domain: tuple[float, float],
    kind: str,
    error: float,
    make: Callable[[int], Pieces],
    most: int,
) -> Iterator[Pieces]:
    """Forms that may keep an error, the cheapest first."""
    if kind == "lines":
        for share in (0.998, 0.99, 0.97, 0.9, 0.7):  # the rest is for rounding
            knots = knots_for(function, domain, 1, error * share, most)
            if knots is None:
                return
            yield pieced(function, knots, 1)
    elif kind == "table":
        first = _first(lambda n: _nearly(function, domain, n) <= error, 1, most)
        for size in (first, first + 1, first + 2, first + first // 64 + 3, first + first // 8 + 8):
            if size <= most:
                yield make(size)
    else:
        for degree in range(1, most + 1):
            yield make(degree)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _nearly(function: Function, domain: tuple[float, float], count: int) -> float:
    """The largest error of interpolation, about."""
    knots = np.linspace(*domain, count + 1)
    middle = (knots[1:] + knots[:-1]) / 2
    values = function(knots)
    return float(np.abs(function(middle) - (values[1:] + values[:-1]) / 2).max()) if count > 2 else math.inf
