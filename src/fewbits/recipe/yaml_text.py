"""YAML as recipes are written in: no key twice, and what looks like a number is one."""

from __future__ import annotations

import re
from typing import Any

import yaml

from fewbits.errors import RecipeError

_TRUE_OR_FALSE = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_WHOLE = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$")
_NUMBER = re.compile(
    r"^[-+]?(?:(?:0|[1-9][0-9_]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 but for three habits of it: ``no`` is a truth value, ``1e-1`` is text, and ``2:4`` is 124."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise RecipeError(f"the key {key!r} is there twice, again in line {key_node.start_mark.line + 1}")
            if isinstance(key, str | int | float):
                seen.add(key)
        return super().construct_mapping(node, deep)


_CHANGED = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in found if tag not in _CHANGED]
    for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _TRUE_OR_FALSE, list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))


def parse(text: str) -> Any:
    """What a YAML text says.

    Raises:
        RecipeError: a key that is there twice. yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_Loader)


def mapping_of(text: str, where: str, what: str) -> dict[Any, Any]:
    """The keys of a YAML text that is to be a mapping.

    Args:
        where, what: the text's place, and what it is to be, for errors: ``"r.yaml"``, ``"a recipe"``.

    Raises:
        RecipeError: a key that is there twice, no YAML, or no mapping.
    """
    try:
        values = parse(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{where} holds {type(values).__name__}, not {what}")
    return values
