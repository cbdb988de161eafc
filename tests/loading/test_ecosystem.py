"""Batches and loaders in what people train with: plain loops, Lightning, Accelerate, torchdata."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils import _pytree
from torch.utils.data import DataLoader, default_collate

from dali_asr import MLP, Batch, Masking, Partition, WindowLoader
from dali_asr.errors import UsageError
from tests.judge import same_batch
from tests.makers import make_partition

CONTEXT, DIM, CLASSES = 4, 5, 42


@pytest.fixture
def partition() -> Partition:
    return make_partition([40, 7, 60, 33], dim=DIM)


def make_loader(partition: Partition, **arguments: Any) -> WindowLoader:
    return WindowLoader(partition, context=CONTEXT, batch_size=16, masking=Masking(), seed=3, device="cpu", **arguments)


def make_model() -> MLP:
    torch.manual_seed(0)
    return MLP(window=2 * CONTEXT + 1, feature_dim=DIM, classes=CLASSES, hidden=(8,))


def plain_loop(partition: Partition, epochs: int) -> dict[str, torch.Tensor]:
    """Train in the plainest loop and return the weights."""
    model, loader = make_model(), make_loader(partition)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for windows, labels, _ in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(windows), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.state_dict()


def assert_same_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("arguments", [{}, {"num_workers": 2}, {"shuffle": True}])
def test_a_loader_in_a_dataloader_says_that_it_needs_none(partition: Partition, arguments: dict[str, Any]) -> None:
    batches: Any = DataLoader(make_loader(partition), **arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"not a dataset for a DataLoader: iterate it directly"):
        next(iter(batches))


def test_a_batch_is_a_tuple_of_tensors(partition: Partition) -> None:
    batch = next(iter(make_loader(partition)))
    windows, labels, frame_ids = batch
    assert windows is batch[0] is batch.windows
    assert labels is batch[1] is batch.labels
    assert frame_ids is batch[-1] is batch.frame_ids
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert [tensor.shape for tensor in moved] == [tensor.shape for tensor in batch]


def test_a_tree_walk_keeps_the_type(partition: Partition) -> None:
    batch = next(iter(make_loader(partition)))
    doubled = _pytree.tree_map(lambda tensor: 2 * tensor, batch)
    assert isinstance(doubled, Batch)
    assert torch.equal(doubled.windows, 2 * batch.windows)
    stacked = default_collate([batch, batch])
    assert isinstance(stacked, Batch)
    assert stacked.windows.shape == (2, *batch.windows.shape)


def torch_save(batch: Batch) -> bytes:
    stream = io.BytesIO()
    torch.save(batch, stream)
    return stream.getvalue()


def torch_load(content: bytes) -> Any:
    return torch.load(io.BytesIO(content))


@pytest.mark.parametrize(("dump", "load"), [(pickle.dumps, pickle.loads), (torch_save, torch_load)])
def test_a_stored_batch_takes_what_it_holds(partition: Partition, dump: Any, load: Any) -> None:
    """And not the memory of the whole iteration that it is a view of."""
    loader = make_loader(partition, batches_per_iteration=8)
    batch = next(iter(loader))
    held = sum(tensor.nbytes for tensor in batch)
    assert batch.windows.untyped_storage().nbytes() > 4 * batch.windows.nbytes
    content = dump(batch)
    assert len(content) < held + 4000
    restored = load(content)
    assert isinstance(restored, Batch)
    assert same_batch(restored, batch)
    assert copy.copy(batch).windows.untyped_storage().nbytes() == batch.windows.nbytes


def lightning_module() -> Any:
    import lightning

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = make_model()

        def training_step(self, batch: Batch, _: int) -> torch.Tensor:
            return functional.cross_entropy(self.model(batch.windows), batch.labels)

        def validation_step(self, *_: Any) -> None:
            pass

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Classifier()


def lightning_trainer(folder: Path, every: int | None = 1, **arguments: Any) -> Any:
    """Return a trainer that keeps all checkpoints: one every some steps, or by default, at the end of epochs."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, every_n_train_steps=every, save_top_k=-1, save_last=True)],
        **arguments,
    )


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_as_a_plain_loop_does(partition: Partition, tmp_path: Path) -> None:
    module = lightning_module()
    lightning_trainer(tmp_path, max_epochs=3).fit(module, make_loader(partition))
    assert_same_weights(module.model.state_dict(), plain_loop(partition, 3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [13, 18])
def test_lightning_resumes_as_if_it_had_not_stopped(partition: Partition, tmp_path: Path, steps: int) -> None:
    """Within an epoch and at the end of one, by Lightning's own checkpoint."""
    assert len(make_loader(partition)) == 9
    lightning_trainer(tmp_path, max_steps=steps).fit(lightning_module(), make_loader(partition))
    resumed = lightning_module()
    trainer = lightning_trainer(tmp_path / "resumed", max_epochs=3)
    trainer.fit(resumed, make_loader(partition), ckpt_path=tmp_path / "last.ckpt")
    assert trainer.global_step == 27
    assert_same_weights(resumed.model.state_dict(), plain_loop(partition, 3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("saved", ["by itself", "by save_checkpoint", "with validation"])
def test_lightning_resumes_with_the_next_epoch(partition: Partition, tmp_path: Path, saved: str) -> None:
    """Of an epoch that is over, Lightning does not load the loader's state; it sets the epoch."""
    module = lightning_module()
    validation = {"val_dataloaders": [torch.zeros(1)]} if saved == "with validation" else {}
    trainer = lightning_trainer(tmp_path, every=None, max_epochs=2)
    trainer.fit(module, make_loader(partition), **validation)
    checkpoint = tmp_path / "last.ckpt"
    if saved == "by save_checkpoint":
        trainer.save_checkpoint(checkpoint := tmp_path / "own.ckpt")
    resumed = lightning_module()
    again = lightning_trainer(tmp_path / "resumed", max_epochs=3)
    again.fit(resumed, make_loader(partition), ckpt_path=checkpoint, **validation)
    assert again.global_step == 27
    assert_same_weights(resumed.model.state_dict(), plain_loop(partition, 3))


@pytest.mark.filterwarnings("ignore")
def test_lightning_evaluates_every_batch_once(partition: Partition, tmp_path: Path) -> None:
    seen: list[Batch] = []

    def step(batch: Batch, *_: Any) -> None:
        seen.append(batch)

    module = lightning_module()
    module.validation_step = module.test_step = module.predict_step = step
    trainer = lightning_trainer(tmp_path, max_epochs=2)
    loader = make_loader(partition, shuffle=False)
    trainer.fit(module, make_loader(partition), loader)
    trainer.validate(module, loader)
    trainer.test(module, loader)
    trainer.predict(module, loader)
    whole = list(make_loader(partition, shuffle=False))
    assert len(seen) == 2 + 5 * len(whole), "two batches before training"
    for first in range(2 + 2 * len(whole), len(seen), len(whole)):
        assert all(torch.equal(a.frame_ids, b.frame_ids) for a, b in zip(seen[first:], whole, strict=False))


def test_a_state_of_other_batches_is_told_from_none(partition: Partition) -> None:
    smaller, larger = (WindowLoader(partition, context=CONTEXT, batch_size=size, device="cpu") for size in (16, 64))
    list(smaller)  # more batches than the other one has
    with pytest.raises(UsageError, match=r"the state belongs to another loader: global_batch 16 \(here 64\)"):
        larger.load_state_dict(smaller.state_dict())


def test_an_epoch_that_is_set_begins_with_its_first_batch(partition: Partition) -> None:
    ran = [list(loader) for loader in [make_loader(partition)] for _ in range(3)]
    loader = make_loader(partition)
    loader.set_epoch(2)
    assert all(same_batch(a, b) for a, b in zip(loader, ran[2], strict=True))
    loader.set_epoch(1)
    batches = iter(loader)
    assert same_batch(next(batches), ran[1][0])
    continued = make_loader(partition)
    continued.load_state_dict(loader.state_dict())
    continued.set_epoch(1)
    assert all(same_batch(a, b) for a, b in zip(continued, ran[1][1:], strict=True)), "the rest of the epoch"
    loader.set_epoch(2)
    assert (loader.epoch, loader.delivered) == (2, 0), "the state is that of the epoch to come"
    with pytest.raises(UsageError, match="another loop has begun"):
        next(batches)


def test_accelerate_trains_and_resumes_as_a_plain_loop_does(partition: Partition, tmp_path: Path) -> None:
    """The loader takes part in Accelerate's checkpoints by its `state_dict`."""
    from accelerate import Accelerator
    from accelerate.utils import send_to_device

    def train(stop: int | None) -> dict[str, torch.Tensor]:
        accelerator = Accelerator(cpu=True)
        model, loader = make_model(), make_loader(partition)
        prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        accelerator.register_for_checkpointing(loader)
        if (tmp_path / "state").exists():
            accelerator.load_state(str(tmp_path / "state"))
        steps = loader.epoch * len(loader) + loader.delivered
        while steps < 27:
            for batch in loader:
                windows, labels, _ = send_to_device(batch, accelerator.device)
                optimizer.zero_grad()
                accelerator.backward(functional.cross_entropy(prepared(windows), labels))
                optimizer.step()
                steps += 1
                if steps == stop:
                    accelerator.save_state(str(tmp_path / "state"))
                    return {}
        weights: dict[str, torch.Tensor] = accelerator.unwrap_model(prepared).state_dict()
        return weights

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(stop=13)
        assert_same_weights(train(stop=None), plain_loop(partition, 3))


def test_torchdata_nodes_deliver_the_same_batches(partition: Partition) -> None:
    from torchdata.nodes import IterableWrapper, Loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        node = Loader(IterableWrapper(make_loader(partition)))
        alone = make_loader(partition)
        for _ in range(2):
            assert all(same_batch(a, b) for a, b in zip(node, alone, strict=True))
