"""A network compiled for an Arm Ethos-U by Vela, and what it takes there (extra ``ethos``)."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fewbits import files
from fewbits.deploy.tflite import TfliteExport, to_tflite
from fewbits.deploy.tflite._lut import weights
from fewbits.errors import ExportError, MissingExtraError, RecipeError, did_you_mean
from fewbits.plan import Plan

ACCELERATORS = {
    **dict.fromkeys((f"ethos-u55-{n}" for n in (32, 64, 128, 256)), "Ethos_U55_High_End_Embedded"),
    **dict.fromkeys((f"ethos-u65-{n}" for n in (256, 512)), "Ethos_U65_Embedded"),
    **dict.fromkeys((f"ethos-u85-{n}" for n in (128, 256, 512, 1024, 2048)), "Ethos_U85_SYS_Flash_High"),
}
"""By name, the system of Vela's own ``vela.ini`` that is taken unless another is named: weights in flash."""

MEMORY_MODE = "Shared_Sram"  # activations in SRAM; defaults differ, and that of U85 keeps them in DRAM


@dataclass(frozen=True)
class VelaExport:
    """What :func:`to_vela` wrote, and Vela's own estimates, for one sample.

    Attributes:
        accelerator, system, memory_mode: what it was compiled for.
        bytes: of the file. weights: how many. weight_bytes: of them as the accelerator reads them, coded.
        sram, flash, dram: bytes that are needed there.
        cycles: in all. npu_cycles: of the accelerator's multipliers. seconds: at its clock.
        npu, cpu: operations on the accelerator, and left to the processor.
        patterned: weights with zeros in a 2:4 pattern along the inputs, in the file's order; Ethos-U85 skips them.
        tflite: the file that was compiled.
    """

    accelerator: str
    system: str
    memory_mode: str
    bytes: int
    weights: int
    weight_bytes: int
    sram: int
    flash: int
    dram: int
    cycles: int
    npu_cycles: int
    seconds: float
    npu: int
    cpu: int
    patterned: int
    tflite: TfliteExport


def to_vela(
    model: nn.Module,
    inputs: Any,
    path: str | os.PathLike[str],
    *,
    plan: Plan,
    accelerator: str = "ethos-u55-128",
    system: str | None = None,
    memory_mode: str = MEMORY_MODE,
) -> VelaExport:
    """Write a network in integer form as a ``.tflite`` file for an Ethos-U.

    Args:
        model, inputs, plan: as of :func:`fewbits.deploy.tflite.to_tflite`.
        accelerator: one of :data:`ACCELERATORS`. system, memory_mode: names in Vela's ``vela.ini``.

    Raises:
        MissingExtraError: no ``ethos-u-vela``. RecipeError: an unknown accelerator. ExportError: Vela fails; the
        message is its own. Else as :func:`fewbits.deploy.tflite.to_tflite`.
    """
    if accelerator not in ACCELERATORS:
        hint = did_you_mean(accelerator, ACCELERATORS)
        raise RecipeError(f"no accelerator {accelerator!r}{hint} (there are {', '.join(ACCELERATORS)})")
    if importlib.util.find_spec("ethosu") is None:
        raise MissingExtraError("ethos-u-vela", "ethos", "Vela")
    system = system or ACCELERATORS[accelerator]
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "net.tflite"
        written = to_tflite(model, inputs, given, plan=plan)
        told = _compiled(given, accelerator, system, memory_mode)
        (table,) = Path(folder).glob("*_summary_*.csv")
        with table.open(newline="") as rows:
            (row,) = csv.DictReader(rows)
        data = (Path(folder) / "net_vela.tflite").read_bytes()
        patterned = sum(has_pattern(name, levels) for name, levels in weights(given.read_bytes()).values())
    files.write(path, data)

    def kib(*columns: str) -> int:
        return round(1024 * sum(float(row[column]) for column in columns))

    return VelaExport(
        accelerator, row["system_config"], row["memory_mode"], len(data),
        weights=int(row["total_original_weights"]), weight_bytes=int(row["total_npu_encoded_weights"]),
        sram=kib("sram_memory_used"), dram=kib("dram_memory_used"),
        flash=kib("on_chip_flash_memory_used", "off_chip_flash_memory_used"),
        cycles=int(float(row["cycles_total"])), npu_cycles=int(float(row["cycles_npu"])),
        seconds=float(row["inference_time"]), npu=_operators("NPU", told), cpu=_operators("CPU", told),
        patterned=patterned, tflite=written,
    )  # fmt: skip


def has_pattern(operation: str, levels: Any) -> bool:
    """Whether each four consecutive inputs (the last dimension) have at most two that are not zero."""
    if operation == "DEPTHWISE_CONV_2D" or levels.shape[-1] % 4:
        return False
    return bool(((levels != 0).reshape(-1, 4).sum(1) <= 2).all())


def _compiled(file: Path, accelerator: str, system: str, memory_mode: str) -> str:
    """What Vela prints. It runs in a process of its own, which it may end without a word."""
    command = [
        sys.executable, "-m", "ethosu.vela", str(file), "--accelerator-config", accelerator, "--config",
        "Arm/vela.ini", "--system-config", system, "--memory-mode", memory_mode, "--output-dir", str(file.parent),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=file.parent)
    if ran.returncode:
        lines = (ran.stderr.strip() or ran.stdout.strip()).splitlines() or [f"it ended with status {ran.returncode}"]
        raise ExportError(f"Vela does not compile this network for {accelerator}: {lines[-1].strip()}")
    return ran.stdout


def _operators(unit: str, told: str) -> int:
    """How many operators are on a unit, by what Vela prints; a summary without any such line says nothing of it."""
    if re.search(r"(NPU|CPU) operators = \d", told) is None:
        raise ExportError("Vela does not say how many operators the accelerator runs: take ethos-u-vela 5.2")
    found = re.search(rf"{unit} operators = (\d+)", told)
    return int(found.group(1)) if found else 0
