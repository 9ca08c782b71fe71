"""What the main job hands back, and how it is read again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from fewbits import files
from fewbits.attach.plain import filled_in
from fewbits.channels.load import load_plan
from fewbits.codec import Base
from fewbits.pipeline._hub import push
from fewbits.pipeline._sources import Place, opened
from fewbits.pipeline.restore import decoded, integer, network_of
from fewbits.plan import Plan
from fewbits.report.report import Report


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed network: its plan, its file, and the report about both; the base, if the file holds differences."""

    plan: Plan
    data: bytes
    report: Report
    base: Base | None = None

    def save(self, path: str | Path) -> None:
        """Write the file: beside the target first, then renamed into place.

        Raises:
            FileError: it cannot be written; a file that was there stays intact.
        """
        files.write(path, self.data)

    def push_to_hub(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the file, its report and a card to the Hugging Face Hub (``pip install 'fewbits[hub]'``).

        Args:
            repo: ``owner/name``; made if it is not there. private, token: as of ``huggingface_hub``.

        Returns:
            The address, ``hf://owner/name``, which :func:`fewbits.load` takes.

        Raises:
            FileError: it cannot be written there. MissingExtraError: no client.
        """
        return push(self.data, self.report, repo, private=private, token=token)

    def into(self, model: nn.Module) -> nn.Module:
        """Give ``model`` (of the same class) the compressed tensors, and return it in evaluation mode.

        With integer activations ``model`` is left as it is, and its integer form is returned.
        """
        return _into(model, self.plan)


def load(path: Place, like: nn.Module, *, base: Place | Base | None = None, member: str | None = None) -> nn.Module:
    """Read a ``.few`` file (a path, or its bytes) into ``like``, an untrained network of the same class.

    Returns it in evaluation mode. ``hf://owner/name`` is a file on the Hugging Face Hub
    (``pip install 'fewbits[hub]'``).

    Wrappers (``DataParallel``, ``torch.compile``) stay, what stands in for weights (``weight_norm``) is folded, and a
    network on the meta device gets memory on the CPU.

    A file with integer activations gives a network of its own: the integer form of ``like``, which is left as it is.

    Args:
        base: of a file of differences (``compress(base=...)``), the file that they are to, if it is not in the same.
        member: of a file of several networks, which one; no more is read than it needs. Default: the only one beside
            its base.

    Raises:
        FileError: missing, damaged or hostile file (FormatError), or a file of another network (MismatchError);
            differences without their base, or with another one (BaseError). RecipeError: no such member.
    """
    skeleton = filled_in(like)
    found = opened(path, base, member, skeleton)
    return _into(like, decoded(found.data, skeleton, found.base))


def _into(like: nn.Module, plan: Plan) -> nn.Module:
    plain = filled_in(like)
    if integer(plan, plain):
        return network_of(plan, plain)
    load_plan(plain, plan)
    return like.eval()
