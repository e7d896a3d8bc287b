"""Dense runs: the model's own weights, seen through a halo, from training to checkpoint."""

import pytest
import torch
from torch.utils.data import DataLoader

from pathology.errors import ManifestError
from pathology.tasks.encoder import task_encoder
from pathology.tasks.tile_classification import TileClassification
from tests.pathology.tasks.small import Data, Watch, fit

HALO = 24
SMALL = {"growth_rate": 8, "block_config": [2, 1]}


def make(**options):
    torch.manual_seed(0)
    options = {"model_args": SMALL, "dense_halo_px": HALO} | options
    return TileClassification("bcos_densenet121", ["light", "dark"], **options)


class Framed(Data):
    """Tiles of 16 px whose frame of 24 px tells nothing."""

    def train_dataloader(self):
        draw = torch.Generator().manual_seed(3)
        side = 16 + 2 * HALO
        tiles = []
        for i in range(8):
            image = torch.randint(0, 256, (3, side, side), generator=draw)
            image[:, HALO:-HALO, HALO:-HALO] = 40 if i % 2 else 215
            tiles.append({"image": image.to(torch.uint8), "label": i % 2})
        return DataLoader(tiles, batch_size=4)

    val_dataloader = train_dataloader


def test_a_dense_task_is_the_dense_function_of_its_model():
    task = make().eval()
    tiles = torch.randint(0, 256, (2, 3, 32 + 2 * HALO, 16 + 2 * HALO), dtype=torch.uint8)
    images = task.encoding(tiles)
    with torch.no_grad():
        logits = task(tiles)
        assert torch.equal(logits, task.dense(images))
        assert torch.equal(task.predict_step({"image": tiles}), logits)
        # What the padding of larger images does is another thing.
        assert not torch.allclose(logits, task.model(images))
    assert make(dense_halo_px=None).dense is None


def test_the_dense_function_is_in_its_models_mode():
    task = make()
    for mode in (False, True):  # explanations at a depth go by it
        task.train(mode)
        assert task.dense.training is mode


def test_weights_have_the_names_they_have_without():
    plain, dense = make(dense_halo_px=None), make()
    assert dense.state_dict().keys() == plain.state_dict().keys()
    assert len(list(dense.parameters())) == len(list(plain.parameters()))
    dense.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("average", [None, 0.5])
def test_training_moves_the_model_and_validates_it_densely(average):
    task = make(ema_decay=average, logit_bias=-3.0)
    before = {name: each.clone() for name, each in task.model.state_dict().items()}
    watch = Watch()
    trainer = fit(task, watch, epochs=2, data=Framed())
    assert len(watch.losses) == 4
    moved = [name for name, each in task.model.state_dict().items() if (each != before[name]).any()]
    assert "features.conv0.weight" in moved
    assert task.dense.network is task.model
    task.eval()
    with torch.no_grad():
        batches = list(Framed().val_dataloader())
        logits = torch.cat([task(batch["image"]) for batch in batches]).float()
        labels = torch.cat([batch["label"] for batch in batches])
        loss = task.plain_loss(logits, labels)
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(float(loss), rel=1e-5)


def test_plain_tiles_are_refused_by_the_first_batch():
    with pytest.raises(ValueError, match=r"multiple of 8 px and a halo of 24 px .*got 32 x 32 px"):
        fit(make(), data=Data())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dense_halo_px": 16}, "halo_px .*at least 24 and a multiple of 8.*got 16"),
        ({"cutmix": 1.0}, "cutmix counts areas of whole images"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        make(**options)


def test_a_vit_cannot_be_dense():
    with pytest.raises(ValueError, match="needs a convolutional network of ours with local logits"):
        TileClassification(
            "bcos_vitc_tiny_patch16_224", ["a", "b"], dense_halo_px=224,
            model_args={"depth": 1, "img_size": 32},
        )  # fmt: skip


def test_a_converted_model_can_be_dense():
    task = TileClassification("resnet18", ["a", "b"], bcosify_epochs=0, dense_halo_px=224)
    assert task.dense.network is task.model
    assert task.dense.halo_px == 224


def test_there_are_no_features_of_tiles_alone():
    assert task_encoder(make(dense_halo_px=None).eval(), "hash").dims
    with pytest.raises(ManifestError, match="a dense run has no features"):
        task_encoder(make().eval(), "hash")
