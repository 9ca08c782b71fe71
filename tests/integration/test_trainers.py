"""Callbacks in the training loops of other libraries."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fewbits as fb
from benchmarks.networks import torchvision

pytestmark = pytest.mark.long
with suppress(ImportError):  # a torchvision of another build does not import, and both libraries look for it
    torchvision()
RECIPE = {"assign": {"method": "ecq", "bits": 4, "options": {"zero_floor": 0.5}}, "rounds": 4}


def body() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 3))


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 3
    x = torch.randn(240, 12, generator=generator)
    x[torch.arange(240), 4 * y] += 3
    return TensorDataset(x, y)


@pytest.mark.parametrize("method", ["ecq", "ecqx"])
def test_lightning(method: str, tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    import lightning.pytorch as lightning

    from fewbits.integrations.lightning import CompressCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = body()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 3e-3)

    module, loader = Module(), DataLoader(data(), 24, shuffle=True)
    recipe = RECIPE | {"assign": RECIPE["assign"] | {"method": method}}  # type: ignore[operator]
    callback = CompressCallback(
        network=lambda m: m.net, recipe=recipe, target="600 B", evaluate=[tuple(data().tensors)]
    )
    trainer = lightning.Trainer(
        max_epochs=4, callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, default_root_dir=tmp_path, accumulate_grad_batches=2,
    )  # fmt: skip
    trainer.fit(module, loader)
    small = callback.compressed
    assert small is not None
    assert small.report.identical
    assert small.report.file_bytes <= 600
    assert small.report.steps == 20
    assert small.report.accuracy_after is not None
    assert small.report.accuracy_after > 80
    small.save(tmp_path / "net.few")
    x = data().tensors[0]
    assert torch.equal(fb.load(tmp_path / "net.few", like=body())(x), module.net.eval()(x))


@pytest.mark.parametrize("method", ["ecq", "ecqx"])
def test_the_trainer_of_transformers(method: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    from fewbits.integrations.transformers import CompressCallback

    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3,
        max_position_embeddings=16,
    )  # fmt: skip

    def model() -> nn.Module:
        torch.manual_seed(0)
        found: nn.Module = transformers.BertForSequenceClassification(config)
        return found

    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(96):
        ids = torch.randint(6, 30, (8,), generator=generator)
        ids[0] = i % 3
        rows.append({"input_ids": ids, "attention_mask": torch.ones(8, dtype=torch.long), "labels": i % 3})
    recipe = RECIPE | {"assign": RECIPE["assign"] | {"method": method, "lam": 0.05}}  # type: ignore[operator]
    callback = CompressCallback(recipe=recipe)
    net = model()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=8, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=True, learning_rate=1e-3,
    )  # fmt: skip
    transformers.Trainer(model=net, args=arguments, train_dataset=rows, callbacks=[callback]).train()
    small = callback.compressed
    assert small is not None
    assert small.report.identical
    assert small.report.steps == 12
    small.save(tmp_path / "net.few")
    inputs = {"input_ids": rows[0]["input_ids"][None], "attention_mask": rows[0]["attention_mask"][None]}
    loaded = fb.load(tmp_path / "net.few", like=model())
    assert torch.equal(loaded(**inputs).logits, net.eval()(**inputs).logits)


class FitError(Exception):
    """Stands for a training that is killed."""


def test_lightning_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    import lightning.pytorch as lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    from fewbits.integrations.lightning import CompressCallback

    class Module(lightning.LightningModule):
        def __init__(self, stop: int | None = None) -> None:
            super().__init__()
            self.net, self.stop = body(), stop

        def training_step(self, batch: Any, index: int) -> Tensor:
            if self.global_step == self.stop:
                raise FitError
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 3e-3)

    recipe = RECIPE | {"assign": {"method": "ecqx", "bits": 4}}

    def fitted(module: lightning.LightningModule, place: Path, start: Path | None = None) -> Any:
        callback = CompressCallback(network=lambda m: m.net, recipe=recipe, target="600 B")
        keep = ModelCheckpoint(place, filename="last", every_n_epochs=1, save_top_k=1)
        trainer = lightning.Trainer(
            max_epochs=4, callbacks=[callback, keep], accelerator="cpu", logger=False, enable_progress_bar=False,
            default_root_dir=place,
        )  # fmt: skip
        torch.manual_seed(0)
        trainer.fit(module, DataLoader(data(), 24), ckpt_path=start)
        return callback.compressed

    whole = fitted(Module(), tmp_path / "whole")
    with pytest.raises(FitError):
        fitted(Module(stop=25), tmp_path / "two")
    kept = torch.load(tmp_path / "two/last.ckpt", weights_only=True)
    assert set(kept["state_dict"]) == set(Module().state_dict()), "a checkpoint without traces of the plan"
    again = fitted(Module(), tmp_path / "two", tmp_path / "two/last.ckpt")
    assert again.data == whole.data
    assert again.report.steps == whole.report.steps == 40


def test_the_trainer_of_transformers_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    from fewbits.errors import DataError, RecipeError
    from fewbits.integrations.transformers import CompressCallback

    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3,
        max_position_embeddings=16,
    )  # fmt: skip

    class Stop(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 9:
                raise FitError

    rows = [{"input_ids": torch.arange(6, 14) + i % 3, "labels": i % 3} for i in range(96)]

    def trained(place: Path, *, stop: bool = False, start: Any = None, **options: Any) -> Any:
        torch.manual_seed(0)
        net = transformers.BertForSequenceClassification(config)
        callback = CompressCallback(recipe=RECIPE | {"assign": {"method": "ecqx", "bits": 4, "lam": 0.05}})
        arguments = transformers.TrainingArguments(
            output_dir=str(place), num_train_epochs=2, per_device_train_batch_size=12, report_to=[], save_steps=4,
            disable_tqdm=True, use_cpu=True, learning_rate=1e-3, **options,
        )  # fmt: skip
        callbacks = [callback, Stop()] if stop else [callback]
        trainer = transformers.Trainer(
            model=net, args=arguments, train_dataset=rows, eval_dataset=rows, callbacks=callbacks
        )
        trainer.train(resume_from_checkpoint=start)
        return callback.compressed

    with pytest.raises(RecipeError, match="would mix two networks: leave it out"):
        trained(tmp_path / "best", load_best_model_at_end=True, eval_strategy="steps", eval_steps=4)
    whole = trained(tmp_path / "whole")
    with pytest.raises(FitError):
        trained(tmp_path / "two", stop=True)
    names = set(transformers.BertForSequenceClassification(config).state_dict())
    assert set(load_file(tmp_path / "two/checkpoint-8/model.safetensors")) == names, "without traces of the plan"
    again = trained(tmp_path / "two", start=True)
    assert again.data == whole.data
    assert again.report.steps == whole.report.steps == 16
    (tmp_path / "two/checkpoint-8").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="checkpoint-8 is not there: name the checkpoint's folder"):
        trained(tmp_path / "two", start=str(tmp_path / "elsewhere"))
