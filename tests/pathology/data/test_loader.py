"""Training sees the same tiles in the same order, resumed or not, forked or spawned."""

from types import SimpleNamespace

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from torch.utils.data import Dataset

from pathology.data.loader import TileLoader
from pathology.data.modules import TileDataModule
from pathology.data.samplers import TileSampler
from pathology.errors import ManifestError

CLASSES = ["normal", "tumour"]


class Numbers(Dataset):
    """Each tile is its own number."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        return torch.tensor(index)


def loader(workers=0):
    sampler = TileSampler(np.repeat(np.arange(6), 10), stretch=4, stretches=3)
    return TileLoader(Numbers(), batch_size=8, sampler=sampler, num_workers=workers)


def shown(batches):
    return torch.cat(list(batches)).tolist()


def test_a_loader_goes_on_within_an_epoch():
    first = loader()
    _ = shown(first)
    epoch = iter(first)
    seen = [next(epoch) for _ in range(3)]
    state = first.state_dict()
    assert state == {"epoch": 1, "batches": 3}
    rest = shown(epoch)
    resumed = loader()
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(1)
    assert shown(resumed) == rest
    assert sorted(shown(seen) + rest) == list(range(60))
    assert shown(resumed) == shown(first)  # whole epochs again


def test_a_loader_resumed_at_another_epoch_shows_all_of_it():
    resumed = loader()
    resumed.load_state_dict({"epoch": 0, "batches": 8})
    resumed.sampler.set_epoch(1)
    assert sorted(shown(resumed)) == list(range(60))


class Notes(lightning.LightningModule):
    """Learns nothing and notes which tiles it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.tolist())
        return self.weight * 0.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, workers, resume=None, **limits):
    notes = Notes()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)],
        **limits,
    )  # fmt: skip
    trainer.fit(notes, loader(workers), ckpt_path=resume)
    return notes.seen


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The dirpath has changed")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("stop", [8, 11])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(tmp_path, workers, stop):
    whole = fit(tmp_path / "whole", workers, max_epochs=3)
    assert len(whole) == 24
    assert whole[:8] != whole[8:16]
    first = fit(tmp_path / "part", workers, max_epochs=3, max_steps=stop)
    checkpoint = tmp_path / "part" / f"step={stop}.ckpt"
    rest = fit(tmp_path / "rest", workers, checkpoint, max_epochs=3)
    assert first + rest == whole


@pytest.fixture
def module(cohort, cohort_tiles):
    def make(**options):
        options = {"batch_size": 16, "num_workers": 0, "augment": "none"} | options
        return TileDataModule(str(cohort), CLASSES, tiles=str(cohort_tiles), **options)

    return make


def labels_and_sums(data, split="train", training=True):
    return [
        (batch["label"].tolist(), batch["image"].sum(dim=(1, 2, 3)).tolist())
        for batch in data.loader(split, training)
    ]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_show_the_same_batches(module, method):
    wanted = labels_and_sums(module())
    assert labels_and_sums(module(num_workers=2, multiprocessing_context=method)) == wanted


def test_the_seed_of_the_run_is_the_seed_of_the_order(module, monkeypatch):
    first = labels_and_sums(module())
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    assert labels_and_sums(module()) != first


@pytest.mark.parametrize(
    ("cores", "devices", "given", "wanted"),
    [(2, 1, None, 2), (32, 1, None, 8), (32, 8, None, 4), (1, 2, None, 0), (32, 1, 3, 3)],
)
def test_workers_are_a_devices_share_of_the_cores(
    module, monkeypatch, cores, devices, given, wanted
):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores), raising=False)
    data = module(num_workers=given)
    data.trainer = SimpleNamespace(global_rank=0, world_size=devices, num_devices=devices)
    assert data.loader("val").num_workers == wanted


def test_two_ranks_share_an_epoch(module):
    seen = []
    for rank in range(2):
        data = module(balance="class")
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, num_devices=2)
        seen.append(list(data.sampler("train", data.dataset("train"))))
    alone = list(module(balance="class").sampler("train", data.dataset("train")))
    assert seen[0] + seen[1] == [*alone, *alone[: len(alone) % 2]]


def test_lightning_leaves_the_order_to_the_sampler(module, monkeypatch):
    data = module()
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    connector = trainer._data_connector
    accelerators = type(trainer._accelerator_connector)
    monkeypatch.setattr(accelerators, "is_distributed", property(lambda self: True))
    assert not connector._requires_distributed_sampler(data.loader("train", training=True))
    assert connector._requires_distributed_sampler(data.loader("val"))


def test_evaluation_shows_each_tile_once_in_order(module):
    data = module()
    dataset = data.dataset("val")
    batches = list(data.loader("val"))
    assert torch.cat([b["label"] for b in batches]).tolist() == dataset.labels.tolist()
    assert batches[0]["image"].dtype == torch.uint8
    assert torch.equal(batches[0]["image"][3], dataset[3]["image"])


@pytest.mark.parametrize("balance", ["class", True, "class+slide"])
def test_balance_evens_out_the_classes(module, balance):
    labels = np.concatenate([labels for labels, _ in labels_and_sums(module(balance=balance))])
    assert abs(labels.mean() - 0.5) < 0.05  # the last tiles do not fill a batch


def test_no_balance_is_false_and_none(module):
    assert labels_and_sums(module(balance=False)) == labels_and_sums(module(balance="none"))


@pytest.fixture
def image_module(tmp_path):
    """25 images, the first 20 of one patient, 4 of another, one of nobody."""

    def make(**options):
        rows = []
        for i, patient in enumerate(["a"] * 20 + ["b"] * 4 + [""]):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
            rows.append({"path": f"{i}.png", "label": CLASSES[i % 2], "split": "train"})
            rows[-1]["patient_id"] = patient
        pd.DataFrame(rows).to_csv(tmp_path / "tiles.csv", index=False)
        options = {"batch_size": 25, "num_workers": 0, "augment": "none"} | options
        return TileDataModule(str(tmp_path / "tiles.csv"), CLASSES, **options)

    return make


def test_balance_by_what_the_manifest_does_not_say_is_refused(image_module):
    with pytest.raises(ManifestError, match="column 'slide_id' is missing; balance class"):
        image_module(balance="class+slide").loader("train", training=True)


def test_balance_by_patient_draws_patients_equally(image_module):
    data = image_module(balance="patient")
    epochs = data.loader("train", training=True)
    numbers = torch.cat([b["image"][:, 0, 0, 0] for _ in range(40) for b in epochs]).numpy()
    share = np.bincount(np.digitize(numbers, [20, 24])) / len(numbers)
    assert np.abs(share - 1 / 3).max() < 0.02  # the nameless row is a patient of its own


def fit_module(data, folder, resume=None, max_epochs=2):
    class Sees(Notes):
        def training_step(self, batch, batch_idx):
            self.seen.append(batch["image"].sum(dim=(0, 1)).tolist())
            return self.weight * 0.0

        def validation_step(self, batch, batch_idx):
            self.checked = batch["image"]

    task = Sees()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=1, max_epochs=max_epochs, num_sanity_val_steps=0,
        callbacks=[ModelCheckpoint(folder, "{epoch}", save_top_k=-1)],
    )  # fmt: skip
    trainer.fit(task, data, ckpt_path=resume)
    return task


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_training_is_augmented_the_same_when_resumed_and_validation_not(module, tmp_path):
    plain = fit_module(module(), tmp_path / "plain")
    whole = fit_module(module(augment="turns"), tmp_path / "whole")
    assert len(whole.seen) == len(plain.seen)
    # Pixels are moved, not changed.
    assert whole.seen != plain.seen
    assert [np.sum(batch) for batch in whole.seen] == [np.sum(batch) for batch in plain.seen]
    assert torch.equal(whole.checked, plain.checked)
    first = fit_module(module(augment="turns"), tmp_path / "part", max_epochs=1)
    rest = fit_module(module(augment="turns"), tmp_path / "part", tmp_path / "part/epoch=0.ckpt")
    assert first.seen + rest.seen == whole.seen


class Counts(Notes):
    """Asks how many steps there will be, as schedules of learning rates do."""

    def training_step(self, batch, batch_idx):
        self.seen.append(batch["image"].sum(dim=(0, 1)).tolist())
        return self.weight * 0.0

    def configure_optimizers(self):
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The dirpath has changed")
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no")
@pytest.mark.parametrize("more", [2, -1])  # into an epoch, and before its last batch
def test_a_run_that_counted_its_steps_first_goes_on_within_an_epoch(module, tmp_path, more):
    def fit(folder, resume=None, **limits):
        task = Counts()
        trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, log_every_n_steps=1, limit_val_batches=0, max_epochs=2,
            callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)],
            **limits,
        )  # fmt: skip
        trainer.fit(task, module(augment="turns"), ckpt_path=resume)
        return task.seen

    whole = fit(tmp_path / "whole")
    stop = len(whole) // 2 + more
    first = fit(tmp_path / "part", max_steps=stop)
    rest = fit(tmp_path / "rest", tmp_path / "part" / f"step={stop}.ckpt")
    assert first == whole[:stop]
    assert rest == whole[stop:]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"balance": "site"}, "balance must be one of none, class, slide"),
        ({"shards": "s"}, "tiles or shards, not both"),
        ({"stretch": 0}, "stretch must be positive"),
        ({"num_workers": -1}, "num_workers at least 0"),
    ],
)
def test_wrong_options_are_refused(module, options, said):
    with pytest.raises(ValueError, match=said):
        module(**options)


def test_stains_without_slides_are_refused():
    with pytest.raises(ValueError, match="stains are of slides"):
        TileDataModule("tiles.csv", CLASSES, stains="stains")


def test_the_digest_knows_the_tiles(module, cohort_tiles, tmp_path):
    data = module()
    before = data.digest()
    for path in cohort_tiles.glob("*.parquet"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data.tiles = str(tmp_path)
    assert data.digest() == before
    next(tmp_path.glob("*.parquet")).write_bytes(b"other")
    assert data.digest() != before
