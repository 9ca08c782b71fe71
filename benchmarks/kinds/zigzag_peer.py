"""Ask ZigZag (zigzag-dse 3.9.1, with six) for energy and cycles of layers on its edge-TPU template, one after another.

Run by an interpreter of its own with two files: layers as a list of JSON objects, and where each answer is added.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import zigzag
from zigzag.api import get_hardware_performance_zigzag

INPUTS = Path(zigzag.__file__).parent / "inputs"


def described(one: dict[str, Any]) -> dict[str, Any]:
    """A layer as ZigZag takes it: a convolution, whose kernel and positions are 1 for a linear one."""
    (high, wide), (down, across), (rows, columns) = one["kernel"], one["stride"], one["size_out"]
    return {
        "id": 0, "name": "layer", "operator_type": "Conv",
        "equation": "O[g][k][oy][ox]+=W[g][k][c][fy][fx]*I[g][c][iy][ix]",
        "dimension_relations": [f"ix={across}*ox+1*fx", f"iy={down}*oy+1*fy"],
        "loop_dims": ["G", "K", "C", "OY", "OX", "FY", "FX"],
        "loop_sizes": [one["groups"], one["outputs"], one["inputs"], rows, columns, high, wide],
        "operand_precision": {"W": one["weight_bits"], "I": one["input_bits"], "O": 16, "O_final": one["input_bits"]},
        "operand_source": {"W": 0, "I": 0},
        "pr_loop_dims": ["IX", "IY"], "pr_loop_sizes": one["size_in"][::-1], "padding": one["padding"][::-1],
    }  # fmt: skip


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    answers = Path(sys.argv[2])
    for one in json.loads(Path(sys.argv[1]).read_text()):
        known = json.loads(answers.read_text()) if answers.exists() else {}
        key = json.dumps(one, sort_keys=True)
        if key in known:
            continue
        with tempfile.TemporaryDirectory() as folder:
            energy, cycles, found = get_hardware_performance_zigzag(
                [described(one)], str(INPUTS / "hardware" / "edge_tpu_like.yaml"),
                str(INPUTS / "mapping" / "edge_tpu_like.yaml"), opt="latency", lpf_limit=4,
                nb_spatial_mappings_generated=1, dump_folder=folder, loma_show_progress_bar=False,
            )  # fmt: skip
        parts = {str(k): list(map(float, v)) for k, v in found[0][0].mem_energy_breakdown.items()}
        known[key] = {"picojoules": float(energy), "cycles": float(cycles), "parts": parts}
        answers.write_text(json.dumps(known, indent=1))
