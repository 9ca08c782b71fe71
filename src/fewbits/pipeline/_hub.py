"""Files on the Hugging Face Hub: a compression is pushed there, and loaded from there by ``hf://owner/name``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fewbits import codec
from fewbits.errors import FileError, MissingExtraError, RecipeError
from fewbits.report.report import Report

SCHEME = "hf://"
FILE = "net.few"
_PLACE = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?(?:/([\w.-]+\.few))?")


def hub() -> Any:
    """The client, imported only when asked for.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub", "the Hugging Face Hub") from error
    return huggingface_hub


def fetched(address: str) -> Path:
    """The file at ``hf://owner/name``, ``hf://owner/name@revision`` or ``hf://owner/name/file.few``, on this machine.

    Raises:
        RecipeError: no such form. FileError: it cannot be had.
    """
    found = _PLACE.fullmatch(address)
    if found is None:
        raise RecipeError(f"{address!r}: write hf://owner/name, hf://owner/name@revision or hf://owner/name/file.few")
    repo, revision, name = found.groups()
    try:
        return Path(hub().hf_hub_download(repo, name or FILE, revision=revision))
    except MissingExtraError:
        raise
    except Exception as error:  # the client's own types, and those of its transport
        raise FileError(f"{address} cannot be had: {' '.join(str(error).split())[:300]}") from error


def push(data: bytes, report: Report, repo: str, *, private: bool, token: str | None) -> str:
    """Upload a file with its report and a card; returns its address.

    Raises:
        RecipeError: no ``owner/name``. FileError: it cannot be written there.
    """
    address = f"{SCHEME}{repo}"
    if _PLACE.fullmatch(address) is None or "@" in repo or repo.count("/") != 1:
        raise RecipeError(f"{repo!r} is no repository: write owner/name")
    parts = {
        FILE: data,
        "report.json": report.to_json().encode(),
        "README.md": card(report, address, codec.inspect(data).base).encode(),
    }
    client = hub().HfApi(token=token)
    try:
        client.create_repo(repo, private=private, exist_ok=True)
        for name, content in parts.items():
            client.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo)
    except Exception as error:  # the client's own types, and those of its transport
        raise FileError(f"{address} cannot be written: {' '.join(str(error).split())[:300]}") from error
    return address


def card(report: Report, address: str, base: str | None = None) -> str:
    """What a stranger reads first: what it is, and how it is loaded; for differences, with which base."""
    given = "" if base is None else ', base="base.few"'
    needs = (
        []
        if base is None
        else [f"It holds differences to a base, and is read with it: the file that ends in {base}.", ""]
    )
    return "\n".join(
        [
            "---",
            "library_name: fewbits",
            "tags: [fewbits, compression]",
            "---",
            f"# {report.model}, compressed",
            "",
            "```python",
            "import fewbits as fb",
            "",
            f'net = fb.load("{address}", like=Net(){given})  # Net: the class of this network, {report.model}',
            "```",
            "",
            *needs,
            "```text",
            str(report),
            "```",
            "",
        ]
    )
