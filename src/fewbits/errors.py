"""Everything that fewbits raises on purpose.

::

    FewbitsError
    ├── RecipeError          a recipe or option that cannot be used (unknown key, wrong type, impossible value)
    ├── SelectionError       a pattern that matches no weight, or weights that cannot be compressed
    ├── UnsupportedError     an operation of the network that has no rule
    ├── NonFiniteError       NaN or infinity in a weight, a relevance or a loss
    ├── DataError            a missing, damaged or empty data set or weight file
    ├── BudgetError          the asked size or accuracy was not reached
    ├── ExportError          a network that cannot be exported, or an export that computes something else
    ├── MissingExtraError    an optional dependency is not installed
    ├── MissingCoderError    the compiled coder is required but was not built
    ├── PrivateError         anything about encrypted inference
    │   ├── DamagedError         an envelope that is damaged, truncated, hostile, or of another version
    │   ├── KindError            a sound envelope of another kind, such as a secret key where a public one is asked
    │   ├── ParametersError      an envelope of another network or other parameters, or parameters that are weak
    │   ├── WrongKeyError        an envelope of another key, or what was decrypted with one
    │   ├── AuthenticationError  a MAC that is missing or wrong
    │   └── ServerError          a server that is not there, is busy, refuses, or gave up
    └── FileError            anything about a ``.few`` file
        ├── FormatError      damaged, truncated, hostile, or written by a newer version
        └── MismatchError    a sound file, but not of this network
            └── BaseError    a file of differences without the file that they are to, or with another one
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

AS_REAL = "keep it as real numbers (torch.view_as_real), and make it complex in the forward"
"""What to do with a complex parameter."""


class FewbitsError(Exception):
    """Base of every error that fewbits raises on purpose."""


class RecipeError(FewbitsError, ValueError):
    """A recipe or option that cannot be used."""


class SelectionError(FewbitsError, ValueError):
    """A pattern that matches no weight, or weights that cannot be compressed."""


class UnsupportedError(FewbitsError, TypeError):
    """An operation of the network for which no rule exists."""


class NonFiniteError(FewbitsError, ArithmeticError):
    """NaN or infinity where a finite number is needed."""


class DataError(FewbitsError, OSError):
    """A data set or weight file that is missing, damaged or empty."""


class BudgetError(FewbitsError, RuntimeError):
    """The asked file size or accuracy was not reached."""


class ExportError(FewbitsError, RuntimeError):
    """A network that cannot be exported, or an export that computes something else."""


class MissingExtraError(FewbitsError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}: pip install 'fewbits[{extra}]'")


class MissingCoderError(FewbitsError, ImportError):
    """``FEWBITS_REQUIRE_C`` is set, and the compiled coder was not built."""


class PrivateError(FewbitsError, ValueError):
    """Anything about encrypted inference."""


class DamagedError(PrivateError):
    """An envelope that is damaged, truncated, hostile, or of another version."""


class KindError(PrivateError):
    """A sound envelope of another kind than the one that is asked for."""


class ParametersError(PrivateError):
    """An envelope of another network or of other parameters; or parameters that are weak."""


class WrongKeyError(PrivateError):
    """An envelope of another key, or what was decrypted with one."""


class AuthenticationError(PrivateError):
    """A MAC that is missing or wrong."""


class ServerError(PrivateError):
    """A server that is not there, is busy, refuses, or gave up."""


class FileError(FewbitsError, ValueError):
    """Anything about a ``.few`` file."""


class FormatError(FileError):
    """A file that is damaged, truncated, hostile, or of an unknown version."""


class MismatchError(FileError):
    """A sound file that does not belong to this network."""


class BaseError(MismatchError):
    """A file of differences without its base, or with another one."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest valid name, or an empty string."""
    close = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def visible(text: str, kept: str = "") -> str:
    """Text from a file as a terminal may show it: what does not print, or reorders what does, as an escape.

    Args:
        kept: characters that stay although they do not print, such as a line's end.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)
