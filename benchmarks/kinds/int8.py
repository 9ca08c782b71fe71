"""INT8 with and without training: accuracy of the written file, and of its ONNX form in ONNX Runtime."""

from pathlib import Path

import numpy as np

from benchmarks.kinds.recipe import made, row_of
from benchmarks.unit import Place, Row, Unit
from fewbits import job as jobs
from fewbits.deploy.onnx import to_onnx
from fewbits.deploy.onnx.runtime import session
from fewbits.pipeline.restore import restore


def measure(unit: Unit, place: Place) -> list[Row]:
    """One row; the two ONNX files stay in the unit's folder, where ``latency`` takes them from."""
    job, result = made(unit, place)
    out = place.work / unit.key
    inputs, _ = next(iter(job.dataset.loader("validation", 64)))
    network, plan = restore(result.data, job.network)
    integer = to_onnx(network, inputs, out / "int8.onnx", plan=plan)
    dense = to_onnx(job.network, inputs, out / "dense.onnx")
    channels = job.recipe.channels
    training = channels and channels.train
    return [
        row_of(unit, job, result) | {
            "task": "accuracy", "method": result.report.method,
            "multiple": channels and channels.multiple, "recovery_epochs": training and training.epochs,
            "recovery_lr": training and training.lr, "recovery_distill": training and training.distill,
            "macs_left": result.report.macs_left, "macs": result.report.macs,
            "onnx_accuracy": scored(out / "int8.onnx", job), "onnx_difference": integer.agreement.difference,
            "onnx_bytes": integer.bytes, "dense_onnx_bytes": dense.bytes,
        }
    ]  # fmt: skip


def scored(file: Path, job: jobs.Job) -> float:
    """Accuracy of an ONNX file in ONNX Runtime on the test data, in percent."""
    run = session(file.read_bytes())
    right = samples = 0
    for inputs, targets in job.dataset.loader("test", 256):
        (logits,) = run.run(None, {"input": inputs.numpy()})
        right += int((np.argmax(logits, 1) == targets.numpy()).sum())
        samples += len(targets)
    return 100 * right / samples
