"""Networks of torchvision, timm and transformers (extra ``networks``)."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fewbits.errors import MissingExtraError, RecipeError, did_you_mean
from fewbits.job._own_code import blame, seeded

LIBRARIES = ("torchvision", "timm", "transformers")


def built(name: str, options: Mapping[str, Any], *, seed: int) -> tuple[nn.Module, bool]:
    """``torchvision:resnet18``, ``timm:resnet18`` or ``transformers:folder``, and whether its weights are trained ones.

    Args:
        seed: of weights that are drawn.
        options: of ``torchvision.models.get_model``, ``timm.create_model`` or ``from_pretrained``; with transformers
            ``class`` names the class, by default that with which the network was saved.

    Raises:
        MissingExtraError: the library is not installed. RecipeError: no such network, or an option that it lacks.
    """
    library, _, model = name.partition(":")
    make = {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}[library]
    try:
        with seeded(seed):
            return make(model, dict(options))
    except (RecipeError, MissingExtraError):
        raise
    except Exception as error:
        raise RecipeError(f"{name} cannot be made with {dict(options)}: {blame(error)}") from error


def _torchvision(model: str, options: dict[str, Any]) -> tuple[nn.Module, bool]:
    models = _imported("torchvision.models")
    _known("torchvision", model, models.list_models())
    return models.get_model(model, **options), options.get("weights") is not None


def _timm(model: str, options: dict[str, Any]) -> tuple[nn.Module, bool]:
    timm = _imported("timm")
    if ":" not in model and "/" not in model:  # else it is of a hub
        _known("timm", model.partition(".")[0], timm.list_models())
    trained = bool(options.get("pretrained") or options.get("checkpoint_path"))
    return timm.create_model(model, **options), trained


def _transformers(place: str, options: dict[str, Any]) -> tuple[nn.Module, bool]:
    transformers = _imported("transformers")
    local = Path(place).is_dir()
    if not local and (not place or place.startswith((".", "/", "~"))):
        raise RecipeError(f"transformers:{place}: there is no folder {place!r} (from {Path.cwd()})")
    chosen = options.pop("class", None)
    source = {"local_files_only": True} if local else {}
    try:
        if chosen is None:
            config = transformers.AutoConfig.from_pretrained(place, **source)
            chosen = (getattr(config, "architectures", None) or ["AutoModel"])[0]
        if not hasattr(transformers, chosen):
            raise RecipeError(f"transformers has no class {chosen!r}; name another in network.options.class")
        # No pickles: a checkpoint without .safetensors files is an error.
        kind = getattr(transformers, chosen)
        model, found = kind.from_pretrained(place, use_safetensors=True, output_loading_info=True, **source, **options)
    except OSError as error:
        where = "the folder" if local else "no folder is there, and the hub"
        says = " ".join(str(error).split())
        raise RecipeError(f"transformers:{place}: {where} gives no network: {says}") from error
    return model, not found["missing_keys"]  # a new head is untrained


def _known(library: str, model: str, models: list[str]) -> None:
    if model not in models:
        raise RecipeError(f"{library} has no network {model!r}{did_you_mean(model, models)} (it has {len(models)})")


def _imported(module: str) -> Any:
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken one raises whatever it likes
        if importlib.util.find_spec(library) is None:
            raise MissingExtraError(library, "networks", f"a network of {library}") from None
        raise RecipeError(f"{library} is installed, but cannot be imported: {blame(error)}") from error
