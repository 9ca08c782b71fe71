"""The folder of a job: what is written there, and what an interrupted one leaves."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewbits import files
from fewbits.data import Normalisation
from fewbits.errors import DataError, FileError, RecipeError
from fewbits.recipe import Recipe
from fewbits.report.explanation import Explanation
from fewbits.report.report import Report
from fewbits.report.results import load_results
from fewbits.train import checkpoint

FLOAT = "float.safetensors"  # the network before compression, beside its file

GIVEN = "given"  # key of what a network and data of one's own were, in the float network of a job that may go on

# An interrupted run leaves the first two, or the third while the float network is trained; results of an earlier run
# beside them stay as they are until the end.
STATE, UNFINISHED, TRAINING = "unfinished.state", "unfinished.safetensors", "unfinished.training"


def is_main_process() -> bool:
    """Whether this process writes and speaks: always, unless a launcher started several.

    Raises:
        RecipeError: a launcher started several that do not know of each other.
    """
    accelerator = Accelerator()  # not the bare state, which does not heed ACCELERATE_USE_CPU
    started = os.environ.get("WORLD_SIZE", "1")
    if started != str(accelerator.num_processes):
        raise RecipeError(
            f"a launcher started {started} processes, which found no way to work together; without GPUs set "
            "ACCELERATE_USE_CPU=true (docs/distributed.md)"
        )
    return bool(accelerator.is_main_process)


def ready(recipe: Recipe, out: Path) -> None:
    """Find out now rather than in the end whether the results can be written. Makes nothing yet.

    Raises:
        FileError: they cannot.
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise FileError(f"{there} is a file; a folder has to go there")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FileError(f"nothing may be written to the folder {there}")
    for name in (recipe.output, FLOAT, "report.json"):
        if (out / name).is_dir():
            raise FileError(f"{out / name} is a folder; a file has to go there")


@contextmanager
def working_in(out: Path, recipe: Recipe) -> Iterator[None]:
    """Make the folder, and let no other job work in it meanwhile; of several processes the main one sees to it.

    Raises:
        FileError: the folder cannot be made, or somebody works there.
    """
    missing: list[Path] = []
    refused: list[FileError | None] = [None]
    with ExitStack() as held:
        held.callback(_remove_empty, missing)
        if is_main_process():
            missing += [place for place in (out, *out.parents) if not place.exists()]
            name = recipe.network.name if recipe.network is not None else "a network"
            try:
                folder(out)
                held.enter_context(files.locked(out, f"{name}, seed {recipe.seed}"))
            except FileError as error:
                refused = [error]
        broadcast_object_list(refused)  # others would wait for a main process that has ended
        if refused[0] is not None:
            raise refused[0]
        yield


def _remove_empty(places: Iterable[Path]) -> None:
    with suppress(OSError):  # there is something in it
        for place in places:
            place.rmdir()


def unfinished(recipe: Recipe, out: Path) -> Path | None:
    """The float network of an interrupted run of this very recipe in ``out``, which need not be trained again.

    Raises:
        DataError: the state of what was interrupted there is damaged, or belongs to another recipe.
    """
    found = [False]
    if is_main_process():
        checkpoint.load(
            out / STATE, recipe.model_dump_json(), whole=False
        )  # refused now rather than after the training
        found = [_recipe_of(out / UNFINISHED) == recipe.model_dump_json()]
    broadcast_object_list(found)  # no process may start to train while another does not
    return out / UNFINISHED if found[0] else None


def trained_before(recipe: Recipe, out: Path) -> Path | None:
    """The float network that was left in ``out`` with the words of this very recipe: no need to train it again."""
    return out / FLOAT if _recipe_of(out / FLOAT) == recipe.model_dump_json() else None


def _recipe_of(path: Path) -> str | None:
    return recorded(path, "recipe")


def recorded(path: Path, key: str) -> str | None:
    """What a file of the float network says under a key beside its tensors, if anything."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(key)
    except (SafetensorError, OSError):
        return None


def left(out: Path) -> Path | None:
    """The file that the same command goes on from after an interruption, if there is one."""
    return next((out / name for name in (STATE, TRAINING, UNFINISHED) if (out / name).is_file()), None)


def forget(out: Path) -> None:
    """Remove what an interrupted run would go on from: the state first, as it is nothing without the rest."""
    (out / STATE).unlink(missing_ok=True)
    (out / UNFINISHED).unlink(missing_ok=True)


def write_pictures(explanation: Explanation, out: Path) -> list[str]:
    """Write an explanation's pictures as PNG files into a folder, and return their names.

    Raises:
        MissingExtraError: matplotlib is not installed. FileError: the folder cannot be written.
    """
    from fewbits.report import plots

    figures = {"kept.png": plots.kept(explanation)}
    if explanation.maps:
        figures["heatmaps.png"] = plots.heatmaps(explanation)
    if explanation.tokens:
        figures["tokens.png"] = plots.tokens(explanation)
    if any(one.before for one in explanation.faithfulness):
        figures["flipping.png"] = plots.flipping(explanation)
    for layer in explanation.layers:
        figures[f"relevance-{layer.name}.png"] = plots.relevance_v_magnitude(explanation, layer.name)
    for name, figure in figures.items():
        files.write(out / name, plots.figure_png(figure))
    return list(figures)


def versions() -> dict[str, str]:
    """What a figure depends on."""
    names = ("fewbits", "torch", "numpy", "accelerate")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def folder(path: Path) -> Path:
    """Make a folder.

    Raises:
        FileError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileError(f"{path} is a file; a folder has to go there") from None
    except OSError as error:
        raise FileError(f"cannot make the folder {path}: {error.strerror}") from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Raises:
        FileError: it cannot be written.
    """
    files.write(path, text.encode())


def save_float(network: nn.Module, path: Path, normalise: Normalisation | None, **more: str) -> None:
    """The float network as safetensors, with the normalisation that its inputs want, if known, and ``more`` metadata.

    Raises:
        FileError: it cannot be written.
    """
    words = {}
    if normalise is not None:
        mean, std = (" ".join(str(v) for v in values) for values in (normalise.mean, normalise.std))
        words = {"normalise": f"mean {mean} std {std}"}
    files.write(path, save(_apart(network.state_dict()), metadata=words | more))


def _apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that lie in memory of their own: safetensors takes no others, and a network may share them."""
    found, seen = {}, set()
    for name, tensor in state.items():
        if isinstance(tensor, Tensor):  # and no extra state
            memory = tensor.untyped_storage().data_ptr()
            found[name] = tensor.detach().clone() if memory in seen else tensor.contiguous()
            seen.add(memory)
    return found


def report_beside(file: Path) -> tuple[Report | None, str]:
    """The report in a file's folder, and why there is none though a ``report.json`` is there: it is of another file.

    Raises:
        DataError: it is not a report. FileError: the file cannot be read.
    """
    path = file.parent / "report.json"
    if not path.is_file():
        return None, ""
    report, data = load_report(path), files.read(file)
    same = len(data) == report.file_bytes and report.sha256 in (None, hashlib.sha256(data).hexdigest())
    return (report, "") if same else (None, f"{path.name} beside it is of another file, and is not read")


def load_report(path: Path) -> Report:
    """The report beside a file.

    Raises:
        DataError: missing or not a report.
    """
    found = load_results(path)
    if not isinstance(found, Report):
        raise DataError(f"{path} is a benchmark's result file, not a report")
    return found
