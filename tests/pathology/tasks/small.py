"""Trainings of a few steps."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from pathology.tasks.tile_classification import TileClassification

BATCHES, BATCH = 6, 4


class Tiles(torch.utils.data.Dataset):
    """Tiles of two classes, one of them darker."""

    def __init__(self, count=BATCHES * BATCH):
        draw = torch.Generator().manual_seed(3)
        self.labels = torch.arange(count) % 2
        noise = torch.randint(0, 128, (count, 3, 32, 32), generator=draw)
        self.images = (noise + 127 * self.labels[:, None, None, None]).to(torch.uint8)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": int(self.labels[index])}


class Data(lightning.LightningDataModule):
    """In the same order every epoch."""

    def train_dataloader(self):
        return DataLoader(Tiles(), batch_size=BATCH)

    def val_dataloader(self):
        return DataLoader(Tiles(8), batch_size=BATCH)

    def class_shares(self):
        return [0.9, 0.1]


class Watch(lightning.Callback):
    """What a training went through: weights, losses and learning rates by step."""

    def __init__(self, stop_at=None):
        self.weights, self.losses, self.rates = [], [], []
        self.stop_at = stop_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[-1]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        state = {k: v.clone() for k, v in pl_module.state_dict().items() if torch.is_tensor(v)}
        self.weights.append(state)
        if trainer.global_step == self.stop_at:
            trainer.should_stop = True


def make(model="bcos_vitc_tiny_patch16_224", **options):
    torch.manual_seed(0)
    small = {"depth": 1, "img_size": 32} if "vit" in model else {}
    options.setdefault("model_args", small)
    return TileClassification(model, ["light", "dark"], **options)


def fit(task, *callbacks, epochs=1, resume=None, data=None, **options):
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), **options,
    )  # fmt: skip
    trainer.fit(task, data or Data(), ckpt_path=resume, weights_only=True)
    return trainer
