"""Class activation maps against formulas by hand, Captum and pytorch-grad-cam; their layers."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bcos_vit.attribution import Classifier, make_method
from bcos_vit.attribution.spatial import places_and_slopes, spatial_layer
from bcos_vit.errors import UnsupportedMethodError
from tests.bcos_vit.attribution.families import FAMILIES, SIDE, spotted, tiny

TARGET = torch.tensor([1, 0])
CAMS = ("gradcam", "gradcam++", "layercam", "smooth_gradcam++", "scorecam")
LAYERS = {
    "bcos_vit": "blocks.1", "vit": "blocks.1.norm1", "vit_avg": "blocks.1",
    "bcos_vitc": "blocks.1", "vitc": "blocks.1", "bcos_swin": "layers.1", "swin": "layers.1",
    "bcos_resnet": "layer4", "resnet": "layer4",
    "bcos_densenet": "features.norm5", "densenet": "features.norm5",
    "bcos_convnext": "stages.3", "convnext": "stages.3",
    "bcos_vgg": "features.5", "vgg": "features.7",
}  # fmt: skip


class Small(nn.Module):
    """A convolution to 4 x 4 places, then a head that is not linear, on 8 x 8 images."""

    feature_info = ({"module": "features"},)

    def __init__(self, scale=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(5 * 16, 2)
        self.scale = scale
        with torch.no_grad():
            for each in self.parameters():
                each.copy_(torch.randn(each.shape, generator=generator) / 2)

    def forward(self, x):
        return self.scale * self.head(self.features(x).flatten(1)).tanh()


def small(scale=1.0):
    return Classifier(Small(scale).double().eval(), nn.Identity())


def by_hand(classifier, images):
    """``A`` and ``G`` of the small network, ``(n, 5, 4, 4)``, in NumPy."""
    model = classifier.model
    places = model.features(images).detach()
    score = model.head(places.flatten(1)).tanh().gather(1, TARGET[:, None])
    slopes = model.scale * (1 - score**2) * model.head.weight[TARGET]
    return places.numpy(), slopes.detach().reshape(places.shape).numpy()


def enlarge(maps):
    maps = torch.as_tensor(maps)[:, None].float()
    return F.interpolate(maps, (8, 8), mode="bilinear", align_corners=False)[:, 0]


def plus_plus(places, first, second, third):
    """Equations 5, 6 and 19 of Grad-CAM++, place by place."""
    maps = np.zeros(places.shape[:1] + places.shape[2:])
    for n, k in np.ndindex(places.shape[:2]):
        weight = 0.0
        for i, j in np.ndindex(places.shape[2:]):
            g, g2, g3 = (each[n, k, i, j] for each in (first, second, third))
            below = 2 * g2 + sum(places[n, k, a, b] for a, b in np.ndindex(places.shape[2:])) * g3
            weight += (g2 / below if below else 0) * max(g, 0)
        maps[n] += weight * places[n, k]
    return np.maximum(maps, 0)


def test_gradcam_layercam_and_gradcam_plus_plus_by_hand():
    classifier, images = small(), spotted(2, 8)
    places, slopes = by_hand(classifier, images)
    weighted = np.einsum("nk,nkij->nij", slopes.mean((2, 3)), places)
    expected = {
        ("gradcam", False): np.maximum(weighted, 0),
        ("gradcam", True): weighted,
        ("layercam", False): np.maximum((np.maximum(slopes, 0) * places).sum(1), 0),
        ("layercam", True): (slopes * places).sum(1),
        ("gradcam++", None): plus_plus(places, slopes, slopes**2, slopes**3),
    }
    for (name, signed), maps in expected.items():
        settings = {} if signed is None else {"signed": signed}
        method = make_method(name, **settings)
        assert method.is_signed == bool(signed)
        found = method(classifier, images, TARGET).maps
        torch.testing.assert_close(found, enlarge(maps), msg=f"{name} {signed}")
    assert weighted.min() < 0  # or the signed option was not seen


def test_smooth_gradcam_plus_plus_by_hand():
    classifier, images = small(), spotted(2, 8)
    chance = torch.Generator().manual_seed(4)
    copies = [(images + 0.3 * torch.randn(3, 8, 8, generator=chance)).clamp(0, 1) for _ in range(3)]
    slopes = [by_hand(classifier, copy)[1] for copy in copies]
    powers = [np.mean([each**p for each in slopes], 0) for p in (1, 2, 3)]
    method = make_method("smooth_gradcam++", samples=3, noise=0.3, seed=4)
    found = method(classifier, images, TARGET).maps
    torch.testing.assert_close(found, enlarge(plus_plus(by_hand(classifier, images)[0], *powers)))


def test_scorecam_by_hand():
    classifier, images = small(), spotted(2, 8)
    with torch.no_grad():  # a channel without any extent, whose mask hides all
        classifier.model.features[0].weight[2] = 0
    places = by_hand(classifier, images)[0]
    maps = []
    for image, label, channels in zip(images, TARGET, places, strict=True):
        scores = []
        for channel in channels:
            mask = enlarge(channel[None])[0].double()
            extent = mask.max() - mask.min()
            mask = (mask - mask.min()) / extent if extent else torch.zeros_like(mask)
            scores.append(classifier(image[None] * mask)[0, label].item())
        weights = np.exp(scores) / np.exp(scores).sum()
        maps.append(np.maximum((weights[:, None, None] * channels).sum(0), 0))
    for batch_size in (2, 32):
        attribution = make_method("scorecam", batch_size=batch_size)(classifier, images, TARGET)
        torch.testing.assert_close(attribution.maps, enlarge(np.stack(maps)))
        assert attribution.forward_passes == 6


def test_scorecam_hides_rgb_before_it_is_encoded():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x * 4 - 2

    make_method("scorecam")(Classifier(Small().double().eval(), Watch()), spotted(1, 8), TARGET[:1])
    assert all(x.min() >= 0 and x.max() <= 1 for x in seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layer_of_each_family(family):
    classifier = tiny(family)
    cut = spatial_layer("gradcam", classifier.model)
    assert cut.module == LAYERS[family]
    images = spotted()
    x = classifier.encode(images)
    places, slopes, logits = places_and_slopes("gradcam", classifier.model, cut, x, TARGET)
    rows, columns = places.shape[2:]
    assert (
        rows
        == columns
        == {"vit": 4, "swin": 4, "vgg": 8}.get(
            family.removeprefix("bcos_").removesuffix("_avg").removesuffix("c"), 1
        )
    )
    assert slopes.abs().amax((1, 2, 3)).min() > 0  # patches still lead to the logit
    torch.testing.assert_close(logits, classifier(images).detach())


def test_places_of_tokens_are_where_they_are_in_the_image():
    """What changes one corner of the image changes the map most in that corner."""
    for family in ("vit", "vit_avg", "vitc", "bcos_swin"):
        classifier, images = tiny(family), spotted(1)
        changed = images.clone()
        changed[:, :, :8, 24:] = 1 - changed[:, :, :8, 24:]
        cut = spatial_layer("gradcam", classifier.model)
        before, after = (
            places_and_slopes("gradcam", classifier.model, cut, classifier.encode(x), TARGET[:1])[0]
            for x in (images, changed)
        )
        moved = (after - before).abs().sum(1)[0]
        assert moved.argmax() == 3, family  # first row, last of four columns


def test_with_a_linear_head_the_signed_map_adds_up():
    """Mean gradient times activation, summed over places, is the logit without its bias."""
    classifier, images = tiny("resnet"), spotted(1, 64)
    attribution = make_method("gradcam", signed=True)(classifier, images, TARGET[:1])
    fc = classifier.model.fc
    places = classifier.model.forward_features(classifier.encode(images))
    expected = (fc.weight[1][:, None, None] * places[0]).sum(0) / 4
    torch.testing.assert_close(expected.sum() + fc.bias[1], attribution.logit[0])
    corners = attribution.maps[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, expected.flatten().float().detach())


@pytest.mark.parametrize("family", ["resnet", "densenet", "vgg", "convnext"])
def test_gradcam_as_captum(family):
    captum = pytest.importorskip("captum.attr", exc_type=ImportError)
    classifier, images = tiny(family), spotted(2, 64)
    layer = classifier.model.get_submodule(LAYERS[family])
    raw = captum.LayerGradCam(classifier.model, layer).attribute(classifier.encode(images), TARGET)
    expected = F.interpolate(raw.detach(), (64, 64), mode="bilinear", align_corners=False)[:, 0]
    maps = make_method("gradcam", signed=True)(classifier, images, TARGET).maps
    torch.testing.assert_close(maps, expected.float())


@pytest.mark.parametrize("family", ["resnet", "vit", "swin"])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [("gradcam", "GradCAM"), ("gradcam++", "GradCAMPlusPlus"), ("layercam", "LayerCAM"),
     ("scorecam", "ScoreCAM")],
)  # fmt: skip
def test_as_pytorch_grad_cam_after_its_scaling(family, name, theirs, monkeypatch):
    library = pytest.importorskip("pytorch_grad_cam", exc_type=ImportError)
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets", exc_type=ImportError)
    classifier, images = tiny(family), spotted(1, SIDE if family != "resnet" else 64)
    model, encode = classifier.model, classifier.encode
    with torch.no_grad():  # it adds 1e-6 to squares of gradients; weights of masks shall differ
        for each in (model.fc if family == "resnet" else model.head).parameters():
            each *= {"gradcam++": 1e4, "scorecam": 100}.get(name, 1)
    if name == "scorecam":
        encode = nn.Identity()  # it masks what is encoded, and enlarges masks corner to corner
        monkeypatch.setattr(nn, "UpsamplingBilinear2d", partial(nn.Upsample, mode="bilinear"))
    layer = model.get_submodule(LAYERS[family])

    def reshape(tokens):
        if family == "swin":
            return tokens.permute(0, 3, 1, 2)
        return tokens[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)

    shape = None if family == "resnet" else reshape
    cam = getattr(library, theirs)(model, [layer], shape)
    with cam:
        scaled = cam(encode(images), [targets.ClassifierOutputTarget(1)])[0]
    maps = make_method(name)(Classifier(model, encode), images, TARGET[:1]).maps
    if (family, name) == ("vit", "scorecam"):
        # Channels of a normed token have mean zero, and equal weights leave nothing of them.
        assert maps.max() == scaled.max() == 0
        return
    assert maps.max() > 0
    # Theirs scales the map to [0, 1] before it enlarges it, and again after it.
    ours = maps[0].double().numpy()
    ours = (ours - ours.min()) / (ours.max() - ours.min())
    assert np.abs(ours - scaled).max() < 1e-3


def test_any_layer_can_be_named():
    classifier, images = tiny("resnet"), spotted(2, 64)
    maps = make_method("layercam", layer="layer2")(classifier, images, TARGET).maps
    assert not torch.equal(maps, make_method("layercam")(classifier, images, TARGET).maps)
    for family, layer in (("vit", "blocks.0.mlp"), ("swin", "layers.0")):
        signed = make_method("gradcam", layer=layer, signed=True)
        assert signed(tiny(family), spotted(), TARGET).maps.std() > 0


def test_layers_that_are_no_map_are_refused():
    classifier = tiny("resnet")
    with pytest.raises(UnsupportedMethodError, match="no layer 'layer5'; did you mean"):
        make_method("gradcam", layer="layer5").check(classifier)
    with pytest.raises(UnsupportedMethodError, match=r"'fc' puts out .* no map of places"):
        make_method("gradcam", layer="fc")(classifier, spotted(), TARGET)
    with pytest.raises(UnsupportedMethodError, match="'head' puts out"):
        make_method("gradcam", layer="head")(tiny("vit"), spotted(), TARGET)
    flat = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 2)).eval(), nn.Identity())
    for name in CAMS:
        with pytest.raises(
            UnsupportedMethodError, match=f"{name.replace('+', '.')}: no map of places"
        ):
            make_method(name).check(flat)


def test_a_layer_that_runs_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(self.conv(x)).mean((2, 3))

    twice = Classifier(Twice().eval(), nn.Identity())
    with pytest.raises(UnsupportedMethodError, match="'conv' runs 2 times"):
        make_method("gradcam", layer="conv")(twice, spotted().float(), TARGET)


def test_third_powers_of_small_gradients_are_not_lost():
    small_logits, images = small(scale=1e-18), spotted(2, 8)
    single = Classifier(small_logits.model.float(), nn.Identity())
    maps = make_method("gradcam++")(single, images.float(), TARGET).maps
    places, slopes = by_hand(small(), images)
    # As logits vanish every share becomes 1/2.
    weights = np.maximum(slopes, 0).sum((2, 3)) / 2
    expected = np.maximum(np.einsum("nk,nkij->nij", weights, places), 0)
    torch.testing.assert_close(maps * 1e18, enlarge(expected), rtol=1e-4, atol=1e-5)
