"""Published weights: the table, the way from a server into a model, and what may go wrong on it.

The server is on loopback and hands out made files; nothing here reaches further.
"""

import dataclasses
import hashlib
import io
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.data import create_transform, resolve_data_config

from bcos_vit.errors import WeightsError
from bcos_vit.layers.patch_embed import flat_patches
from bcos_vit.models import bcos_v2, create_model, registry, weights
from bcos_vit.models.weights import PUBLISHED, TERMS, PublishedWeights, load_published, published

RESNET = "bcos_resnet18"
SHALLOW = {"layers": (1, 1, 1, 1)}
GARBAGE = "garbage.pth"


def reference_resnet():
    """A state dict in the reference's layout, of a ResNet with one block per stage."""
    tensors = {}

    def conv(name, *shape):
        tensors[f"{name}.linear.weight"] = torch.randn(shape)

    def norm(name, chans):
        tensors[f"{name}.weight"] = 1 + 0.1 * torch.randn(chans)
        tensors[f"{name}.running_mean"] = torch.zeros(chans)
        tensors[f"{name}.running_var"] = 0.5 + torch.rand(chans)
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", 64, 6, 7, 7)
    norm("bn1", 64)
    for stage, (before, after) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], 1):
        for i, chans in enumerate((before, after), 1):
            conv(f"layer{stage}.0.conv{i}", after, chans, 3, 3)
            norm(f"layer{stage}.0.bn{i}", after)
        if before != after:
            conv(f"layer{stage}.0.downsample.0", after, before, 1, 1)
            norm(f"layer{stage}.0.downsample.1", after)
    conv("fc", 1000, 512, 1, 1)
    return tensors


def reference_vit():
    """A state dict in the reference's layout, of a tiny ViT with one block."""
    shapes = {
        "to_patch_embedding.linear.linear": (192, 16 * 16 * 6),
        "transformer.encoder_0.attn.norm": (192,),
        "transformer.encoder_0.attn.to_qkv": (3 * 192, 192),
        "transformer.encoder_0.attn.to_out.linear": (192, 192),
        "transformer.encoder_0.ff.net.norm": (192,),
        "transformer.encoder_0.ff.net.linear1.linear": (4 * 192, 192),
        "transformer.encoder_0.ff.net.linear2.linear": (192, 4 * 192),
        "linear_head.norm": (192,),
        "linear_head.linear.linear": (1000, 192),
    }
    return {f"0.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}


def as_file(tensors):
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """Hands out ``files`` by path, each short of its last ``lost`` bytes; keeps the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.lost = {}, [], 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path.endswith(GARBAGE):
            self.wfile.write(b"what is this\r\n\r\n")
            return
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - self.server.lost])

    def log_message(self, *_):
        pass


@contextmanager
def running_server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server():
    with running_server() as server:
        yield server


@pytest.fixture
def closed_port():
    """A loopback port on which nobody listens, though nobody else can take it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="module")
def resnet_file():
    torch.manual_seed(1)
    tensors = reference_resnet()
    return as_file(tensors), tensors


@pytest.fixture
def publish(server, monkeypatch):
    """Put a file on the server and make it the only published one."""

    def publish(content, model=RESNET, **changes):
        sha256 = hashlib.sha256(content).hexdigest()[:10]
        path = f"/{model}-{sha256}.pth"
        server.files[path] = content
        row = dataclasses.replace(
            next(row for row in PUBLISHED if row.model == model),
            url=f"http://127.0.0.1:{server.server_port}{path}",
            **({"sha256": sha256, "model_args": SHALLOW} | changes),
        )
        monkeypatch.setattr(weights, "PUBLISHED", (row,))
        return row

    return publish


@pytest.fixture
def row(publish, resnet_file):
    return publish(resnet_file[0])


def create(cache_dir, name=RESNET, **options):
    return create_model(name, pretrained=True, cache_dir=cache_dir, **options)


# --- the way of a file --------------------------------------------------------------------------


def test_a_file_is_downloaded_once_and_its_weights_are_the_models(
    row, resnet_file, server, tmp_path, capsys
):
    cache = tmp_path / "cache" / "of weights"
    model = create(cache)
    assert "100%" in capsys.readouterr().err
    tensors = resnet_file[1]
    state = model.state_dict()
    for key, value in tensors.items():
        if not key.endswith("running_mean"):
            torch.testing.assert_close(state[key.replace(".linear", "")], value, rtol=0, atol=0)
    assert [path.name for path in cache.iterdir()] == [row.url.rpartition("/")[2]]

    again = create(cache).state_dict()
    assert capsys.readouterr().err == ""
    assert len(server.requests) == 1
    assert all(torch.equal(again[key], value) for key, value in state.items())


def test_outputs_are_those_of_the_reference_loader(row, resnet_file, tmp_path):
    model = create(tmp_path).eval()
    other = create_model(RESNET, **SHALLOW).eval()
    bcos_v2.fit(other, bcos_v2.convert_state_dict("resnet18", resnet_file[1]), "test")
    images = torch.rand(1, 6, 64, 64)
    torch.testing.assert_close(model(images), other(images), rtol=0, atol=0)


@pytest.mark.usefixtures("row")
def test_files_are_kept_where_torch_hub_keeps_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    timm.create_model(RESNET, pretrained=True)
    assert len(list((tmp_path / "hub" / "checkpoints").glob("*.pth"))) == 1


def test_a_file_put_there_by_hand_is_used(row, resnet_file, closed_port, monkeypatch, tmp_path):
    offline = dataclasses.replace(row, url=f"http://127.0.0.1:{closed_port}/some.pth")
    monkeypatch.setattr(weights, "PUBLISHED", (offline,))
    with pytest.raises(WeightsError) as caught:
        create(tmp_path)
    assert str(tmp_path / "some.pth") in str(caught.value)
    (tmp_path / "some.pth").write_bytes(resnet_file[0])
    create(tmp_path)


def test_another_file_in_the_cache_is_refused_and_left(row, server, tmp_path):
    path = tmp_path / row.url.rpartition("/")[2]
    path.write_bytes(b"something else")
    found = hashlib.sha256(b"something else").hexdigest()[:10]
    with pytest.raises(WeightsError, match=rf"{path.name} is not .*{row.sha256}, is {found}; dele"):
        create(tmp_path)
    assert path.read_bytes() == b"something else"
    assert server.requests == []


def test_another_file_on_the_server_is_refused(publish, resnet_file, tmp_path):
    publish(resnet_file[0], sha256="0123456789")
    with pytest.raises(WeightsError, match=r'bcos_resnet18\.in1k cannot .*expected "0123456789"'):
        create(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("row")
def test_a_download_that_ends_early_leaves_nothing(server, tmp_path):
    server.lost = 1000
    with pytest.raises(WeightsError, match=r"bcos_resnet18\.in1k cannot be had from http://127"):
        create(tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.lost = 0
    create(tmp_path)


@pytest.mark.parametrize("make", [create_model, timm.create_model])
def test_offline_is_one_line_that_says_what_to_do(make, row, closed_port, monkeypatch, tmp_path):
    url = f"http://127.0.0.1:{closed_port}/{RESNET}.pth"
    monkeypatch.setattr(weights, "PUBLISHED", (dataclasses.replace(row, url=url),))
    with pytest.raises(WeightsError) as caught:
        make(RESNET, pretrained=True, cache_dir=tmp_path)
    line = str(caught.value)
    assert line.startswith(f"weights of {RESNET}.in1k cannot be had from {url}: ")
    assert "refused" in line
    assert line.endswith(f"they can be put at {tmp_path / RESNET}.pth by hand")
    assert "\n" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("file", "reason"), [("not_there.pth", "404"), (GARBAGE, "what is this")])
def test_other_failures_of_a_server_are_ours_too(file, reason, row, server, monkeypatch, tmp_path):
    url = f"http://127.0.0.1:{server.server_port}/{file}"
    monkeypatch.setattr(weights, "PUBLISHED", (dataclasses.replace(row, url=url),))
    with pytest.raises(WeightsError, match=f"cannot be had from {url}: .*{reason}"):
        create(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("row")
def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"put at .*/file/.*\.pth by hand"):
        create(tmp_path / "file")


@pytest.mark.parametrize("content", [b"no checkpoint", as_file({"x": print}), as_file({})])
def test_a_file_without_weights_is_an_error_of_ours(content, publish, tmp_path):
    publish(content)
    with pytest.raises(WeightsError):
        create(tmp_path)


# --- fitting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layer2.0.conv1.linear.weight"), r"lacks 'layer2\.0\.conv1\.weight'"),
        (
            lambda t: t.update({"extra.weight": t["fc.linear.weight"]}),
            r"holds 'extra\.weight', for which",
        ),
        (lambda t: t.update({"bn1.weight": torch.ones(3)}), r"holds 'bn1\.weight' in another"),
    ],
)
def test_a_file_that_does_not_fit_says_which_tensor(change, message, publish, tmp_path):
    tensors = reference_resnet()
    change(tensors)
    publish(as_file(tensors))
    with pytest.raises(WeightsError, match=rf"of bcos_resnet18\.in1k {message}"):
        create(tmp_path)


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("option", [{"max_out": 2}, {"layers": (2, 1, 1, 1)}])
def test_options_that_need_other_weights_are_refused(option, tmp_path):
    with pytest.raises(WeightsError, match=r"the published file of bcos_resnet18\.in1k"):
        create(tmp_path, **option)


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("options", [{"num_classes": 3}, {"num_classes": 1001, "logit_bias": 0.5}])
def test_another_number_of_classes_gets_a_new_head(options, resnet_file, tmp_path):
    model = create(tmp_path, **options)
    fresh = create_model(RESNET, **SHALLOW, **options)
    assert model.fc.weight.shape == fresh.fc.weight.shape
    assert torch.equal(model.logits.bias, fresh.logits.bias)
    tensors = resnet_file[1]
    assert torch.equal(model.conv1.weight, tensors["conv1.linear.weight"])
    assert torch.equal(model.layer4[0].bn2.running_var, tensors["layer4.0.bn2.running_var"])
    assert model.eval()(torch.rand(1, 6, 64, 64)).shape == (1, options["num_classes"])


@pytest.mark.usefixtures("row")
def test_published_logits_have_the_published_bias(tmp_path):
    bias = create(tmp_path).logits.bias
    # logit(1 / 1000), the default of the reference, in float32.
    assert bias.tolist() == pytest.approx([-torch.tensor(999.0).log().item()] * 1000, rel=1e-7)


@pytest.mark.usefixtures("row")
def test_no_head_at_all(tmp_path):
    model = create(tmp_path, num_classes=0, global_pool="").eval()
    assert model(torch.rand(1, 6, 64, 64)).shape == (1, 512, 2, 2)


@pytest.mark.usefixtures("row")
def test_feature_maps_of_a_published_network(resnet_file, tmp_path):
    model = create(tmp_path, features_only=True, out_indices=(1, 4)).eval()
    assert [x.shape[1] for x in model(torch.rand(1, 6, 64, 64))] == [64, 512]
    weight = resnet_file[1]["layer4.0.conv2.linear.weight"]
    assert any(torch.equal(weight, value) for value in model.state_dict().values())


@pytest.mark.parametrize("options", [{}, {"img_size": 64}, {"img_size": (32, 48), "in_chans": 3}])
def test_a_vit_at_any_size(options, publish, tmp_path):
    tensors = reference_vit()
    name = "bcos_vit_tiny_patch16_224"
    publish(
        as_file(tensors), name, model_args={"pos_embed": "sincos", "init_values": 0, "depth": 1}
    )
    model = create(tmp_path, name, **options).eval()
    assert torch.equal(
        model.blocks[0].attn.qkv.weight, tensors["0.transformer.encoder_0.attn.to_qkv.weight"]
    )
    assert model(torch.rand(1, options.get("in_chans", 6), 32, 48)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("name", "chans", "options", "first"),
    [
        (RESNET, 6, SHALLOW, "conv1"),
        ("bcos_vit_tiny_patch16_224", 6, {"depth": 1}, "patch_embed.proj"),
        ("bcos_vitc_tiny_patch16_224", 6, {"depth": 1}, "patch_embed.convs.0"),
        ("simple_vit_tiny_patch16_224", 3, {"depth": 1}, "patch_embed.proj"),
        ("vitc_tiny_patch16_224", 3, {"depth": 1}, "patch_embed.convs.0"),
    ],
)
def test_other_channels_keep_what_is_linear_in_the_colours(
    name, chans, options, first, monkeypatch
):
    row = next(row for row in PUBLISHED if row.model == name)
    stored = create_model(name, in_chans=chans, **options).double()
    model = create_model(name, in_chans=9 - chans, **options).double()
    ours = ("logits.", "homotopy")
    tensors = {k: v for k, v in stored.state_dict().items() if not k.startswith(ours)}
    monkeypatch.setattr(weights, "download", lambda *_: None)
    monkeypatch.setattr(bcos_v2, "convert_state_dict", lambda *_: tensors)
    load_published(model, row)

    def linear(model, x):
        layer = model.get_submodule(first)
        # Odd padding shows that borders, where the complement of nothing is nothing, agree too.
        return (
            F.conv2d(x, layer.weight, padding=3)
            if layer.weight.ndim == 4
            else F.linear(flat_patches(x, 16), layer.weight)
        )

    three, six = (stored, model) if chans == 3 else (model, stored)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    black = torch.zeros_like(x)
    of_colours = linear(six, torch.cat([x, 1 - x], 1)) - linear(
        six, torch.cat([black, 1 - black], 1)
    )
    torch.testing.assert_close(linear(three, x), of_colours, rtol=1e-10, atol=1e-10)
    for key, value in model.state_dict().items():
        if key != f"{first}.weight" and key in tensors:
            assert torch.equal(value, tensors[key])


@pytest.mark.usefixtures("row")
def test_stain_input_starts_from_the_weights_of_colours(resnet_file, tmp_path):
    model = create(tmp_path, encoding="stain")
    assert model.encoding == "stain"
    assert torch.equal(model.conv1.weight, resnet_file[1]["conv1.linear.weight"])


@pytest.mark.usefixtures("row")
def test_other_numbers_of_channels_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"bcos_resnet18\.in1k .*in_chans 3 or 6, got 4"):
        create(tmp_path, in_chans=4)


# --- names --------------------------------------------------------------------------------------


def test_a_tag_picks_weights_and_the_first_is_the_default():
    assert published("bcos_resnet50").entry == "resnet50"
    assert published("bcos_resnet50", "in1k").entry == "resnet50"
    assert published("bcos_resnet50", "in1k_long").entry == "resnet50_long"
    assert timm.get_pretrained_cfg("bcos_resnet50").tag == "in1k"


@pytest.mark.parametrize(("tag", "entry"), [("", "resnet50"), (".in1k_long", "resnet50_long")])
@pytest.mark.parametrize("make", [create_model, timm.create_model])
def test_the_tag_in_a_name_is_heard(make, tag, entry, monkeypatch):
    loaded = []
    monkeypatch.setattr(registry, "load_published", lambda _, row, __: loaded.append(row.entry))
    model = make(f"bcos_resnet50{tag}", pretrained=True, **SHALLOW)
    assert loaded == [entry]
    assert model.pretrained_cfg["url"] == published("bcos_resnet50", tag[1:]).url


@pytest.mark.parametrize("pretrained", [True, False])
def test_an_unknown_tag_is_answered_with_the_known_ones(pretrained):
    with pytest.raises(WeightsError, match=r"'in22k'; there are bcos_resnet50\.in1k, .*in1k_long"):
        create_model("bcos_resnet50.in22k", pretrained=pretrained)


def test_a_network_that_was_not_published_says_so():
    with pytest.raises(WeightsError, match="bcos_vit_tiny_patch8_224 has no published weights"):
        create_model("bcos_vit_tiny_patch8_224", pretrained=True)


def test_a_tag_alone_builds_the_network_that_was_published():
    name = "bcos_vit_tiny_patch16_224"
    tagged, plain = create_model(f"{name}.in1k", depth=1), create_model(name, depth=1)
    assert tagged.pos_embed is not None
    assert plain.pos_embed is None
    assert set(tagged.state_dict()) < set(plain.state_dict())


def test_a_config_of_timms_names_its_weights():
    config = timm.get_pretrained_cfg("bcos_resnet50.in1k_long")
    row = next(row for row in PUBLISHED if row.entry == "resnet50_long")
    assert published("bcos_resnet50", config) == row
    assert published("bcos_resnet50", config.to_dict()) == row


def test_a_mirror_serves_the_same_file(row, server, closed_port, monkeypatch, tmp_path):
    gone = dataclasses.replace(row, url=f"http://127.0.0.1:{closed_port}/x.pth")
    monkeypatch.setattr(weights, "PUBLISHED", (gone,))
    create(tmp_path, pretrained_cfg_overlay={"url": row.url})
    assert len(server.requests) == 1


def test_a_mirror_needs_an_address():
    with pytest.raises(ValueError, match=r"url must begin with https:// or http://, got 'x\.pth'"):
        published(RESNET, overlay={"url": "x.pth"})


@pytest.mark.parametrize("source", ["file", "hf_hub_id"])
def test_weights_from_elsewhere_are_not_taken_for_published_ones(source):
    with pytest.raises(WeightsError, match=f"bcos_resnet18 cannot come from '{source}'"):
        create_model(RESNET, pretrained=True, pretrained_cfg_overlay={source: "x"})


# --- the table ----------------------------------------------------------------------------------


@pytest.fixture(params=PUBLISHED, ids=lambda row: row.name)
def published_row(request):
    return request.param


def test_the_table_has_all_that_was_published():
    assert len(PUBLISHED) == 34
    for fact in ("entry", "name", "url", "sha256"):
        assert len({getattr(row, fact) for row in PUBLISHED}) == 34, fact


def test_the_table_and_the_reference_loader_agree():
    assert {row.entry: (row.model, row.model_args) for row in PUBLISHED} == bcos_v2.ENTRY_POINTS


def test_a_row_is_well_formed(published_row: PublishedWeights):
    row = published_row
    assert row.url.startswith("https://github.com/B-cos/B-cos-v2/releases/download/")
    assert row.url.endswith(f"-{row.sha256}.pth")
    assert len(row.sha256) == 10
    int(row.sha256, 16)
    assert 59 < row.top1 < 81
    conventional = row.entry.startswith("standard_")
    assert conventional != row.model.startswith("bcos_")
    assert row.input_size == (3 if conventional else 6, 224, 224)
    assert len(row.mean) == len(row.std) == row.input_size[0]


def test_a_row_is_a_registered_model_of_its_first_layer_and_classifier(published_row):
    row = published_row
    assert timm.is_model(row.model)
    with torch.device("meta"):
        model = create_model(row.model, **row.model_args)
    config = timm.get_pretrained_cfg(row.name)
    assert config.classifier == model.classifier_name
    first = model.get_submodule(config.first_conv).weight
    assert first.shape[1] in (row.input_size[0], row.input_size[0] * 16**2)
    assert model.num_classes == 1000


def test_a_rows_preprocessing_is_timms(published_row):
    row = published_row
    config = timm.get_pretrained_cfg(row.name)
    assert (config.url, config.license, config.notes) == (row.url, "apache-2.0", (TERMS,))
    assert config.paper_ids == "arXiv:2306.10898"
    data = resolve_data_config(pretrained_cfg=config.to_dict())
    resized = create_transform(**data).transforms[0]
    assert (resized.size, resized.interpolation.value) == (row.resize, "bilinear")
    assert data["input_size"] == row.input_size
    assert data["mean"] == row.mean
    assert data["std"] == row.std
    assert row.resize == (232 if row.tag == "in1k_long" else 256)
