"""Models as people run them: compiled, exported, in half precision, averaged, on several processes.

On one shallow model per family (``families.py``); the distributed ones are tinier still.
"""

import copy
import pickle

import onnxruntime
import pytest
import timm
import torch
import torch.multiprocessing
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import explain
from bcos_vit.layers import (
    BcosAttention,
    BcosBatchNorm2d,
    BcosConv2d,
    BcosGroupNorm,
    BcosLayerNorm,
    BcosLayerScale,
    BcosLinear,
    BcosWindowAttention,
    Logits,
    PlainLinear,
    explanation_mode,
    synchronise_batch_norm,
)
from bcos_vit.layers.fast import plain_formulas
from tests.contract.families import FAMILIES, FAMILY_NAMES, gradients, pictures, settled
from tests.contract.processes import PROCESSES, batch, build, normalise, train, work

WEIGHTED = (BcosConv2d, BcosLinear, PlainLinear, BcosAttention, BcosWindowAttention)
ELEMENTWISE = (BcosBatchNorm2d, BcosGroupNorm, BcosLayerNorm, BcosLayerScale, Logits)


@pytest.fixture(params=FAMILY_NAMES)
def family(request):
    return FAMILIES[request.param]


def assert_close(found, expected):
    """Equal up to float64's rounding in another order of summation."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# --- compilation and export ---------------------------------------------------------------------


def test_compiled_without_a_break_a_model_computes_learns_and_is_explained(family):
    torch._dynamo.reset()
    model, x = settled(family), pictures(family)
    graph = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert_close(graph(x), model(x))
    assert_close(explain(graph, x, 1).weights, explain(model, x, 1).weights)
    expected = gradients(copy.deepcopy(model).train(), x)
    for key, gradient in gradients(graph.train(), x).items():
        assert_close(gradient, expected[key.removeprefix("_orig_mod.")])
    torch._dynamo.reset()


CONVENTIONAL = {"conventional": True, "b": 1.5}
EXPORTED = [(name, {}) for name in FAMILY_NAMES] + [
    (name, CONVENTIONAL) for name in ("bcos_resnet18", "bcos_vit_tiny_patch16_224")
]


@pytest.mark.parametrize(("family", "options"), EXPORTED, indirect=["family"])
def test_exported_models_compute_the_same_for_any_number_of_images(family, options):
    model = settled(family, logit_bias=0.0, **options).float()
    program = torch.export.export(
        model, (pictures(family).float(),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    x = pictures(family, 3).float()
    # What is exported are the plain formulas; other programs fuse them as they see fit.
    with plain_formulas():
        expected = model(x).detach()
    assert torch.equal(program.module()(x), expected)
    exported = torch.onnx.export(program, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(exported.model_proto.SerializeToString())
    found = torch.tensor(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    # float32, in another order of summation.
    assert (found - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("name", ["bcos_convnext_tiny_bnu", "bcos_vitc_tiny_patch16_224"])
def test_a_model_exported_in_explanation_mode_has_its_weights_for_gradient(name):
    family = FAMILIES[name]
    model, x = settled(family), pictures(family)
    with explanation_mode():
        program = torch.export.export(model, (x,))
    x.requires_grad_()
    gradient = torch.autograd.grad(program.module()(x)[:, 1].sum(), x)[0]
    assert_close(gradient, explain(model, x, 1).weights)


def test_an_exported_model_is_not_explained_unseen():
    family = FAMILIES["bcos_convnext_tiny"]
    program = torch.export.export(settled(family), (pictures(family),))
    with pytest.raises(NotExplainableError, match="the model itself"):
        explain(program.module(), pictures(family))


# --- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_under_autocast_layers_return_half_precision(family, training):
    options = CONVENTIONAL if family.conventional else {}
    model = settled(family, **options).float().train(training)
    if family.conventional:
        model.add_module("bcos", settled(family).float().train(training))
    wrong = []

    def note(module, inputs, output):
        wanted = torch.bfloat16 if isinstance(module, WEIGHTED) else inputs[0].dtype
        if output.dtype != wanted:
            wrong.append((module, output.dtype))

    for module in model.modules():
        if isinstance(module, WEIGHTED + ELEMENTWISE):
            module.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        for each in (model, *([model.bcos] if family.conventional else [])):
            assert each(pictures(family).float()).dtype == torch.bfloat16
    assert wrong == []


def test_under_autocast_logits_are_those_of_float32_up_to_rounding(family):
    model, x = settled(family, logit_bias=0.0).float(), pictures(family).float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = model(x).float()
    expected = model(x).detach()
    # bfloat16 keeps 8 bits, through some 20 layers.
    assert (found - expected).norm() / expected.norm() < 0.1


def test_under_autocast_gradients_are_finite(family):
    model = settled(family).float().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(pictures(family).float()).float().square().sum()
    loss.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32, key
        assert parameter.grad.isfinite().all(), key


def test_under_autocast_running_variances_are_those_of_float32():
    norm, other = BcosBatchNorm2d(4, momentum=1.0), BcosBatchNorm2d(4, momentum=1.0)
    x = (torch.randn(8, 4, 16, 16) * 30).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        norm(x)
    other(x.float())
    assert norm.running_var.dtype == torch.float32
    assert torch.equal(norm.running_var, other.running_var)


# --- memory formats and copies ------------------------------------------------------------------


def test_channels_last_gives_the_same(family):
    model, x = settled(family), pictures(family)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    last = x.to(memory_format=torch.channels_last)
    assert_close(explain(other, last, 1).weights, explain(model, x, 1).weights)
    found = gradients(other.train(), last)
    for key, gradient in gradients(model.train(), x).items():
        assert_close(found[key], gradient)


def test_a_pickled_model_gives_the_same_explanation(family):
    model, x = settled(family), pictures(family)
    other = pickle.loads(pickle.dumps(model))
    assert torch.equal(explain(other, x, 1).weights, explain(model, x, 1).weights)


# --- averages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda m: ModelEmaV3(m, decay=0.5), AveragedModel])
def test_an_average_of_models_is_explained_as_the_model_it_holds(family, make):
    model, x = settled(family).train(), pictures(family)
    average = make(model)
    if isinstance(average, AveragedModel):
        average.update_parameters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.rand_like(parameter) + 0.5)
    update = getattr(average, "update_parameters", None) or average.update
    update(model)
    found = explain(average.eval(), x, 1)
    expected = explain(average.module.eval(), x, 1)
    assert torch.equal(found.weights, expected.weights)
    assert found.completeness_gap.max() < 1e-9
    assert not torch.allclose(found.weights, explain(model.eval(), x, 1).weights)


def test_an_average_holds_the_mean_of_weights_and_of_statistics():
    family = FAMILIES["bcos_resnet18"]
    model = settled(family)
    average = ModelEmaV3(model, decay=0.75)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)
    average.update(model)
    for key, value in average.module.state_dict().items():
        # The count of batches is a whole number, and copied.
        share = 0.25 if value.is_floating_point() else 1
        assert_close(value, before[key] + share)


# --- several processes --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What two processes made of half a batch each."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_two_processes_take_the_step_that_one_takes_on_the_whole_batch(processes, kind):
    expected = train(build(kind), *batch())
    assert_close(torch.cat([each[kind]["outputs"] for each in processes]), expected["outputs"])
    for each in processes:
        for part in ("gradients", "state"):
            for key, value in expected[part].items():
                assert_close(each[kind][part][key], value)
    assert any("running_var" in key for key in expected["state"]) == (kind == "cnn")


def test_without_synchronisation_each_process_has_a_variance_of_its_own(processes):
    together = torch.cat([each["cnn"]["outputs"] for each in processes])
    apart = torch.cat([each["apart"]["outputs"] for each in processes])
    assert (together - apart).norm() > 0.01 * together.norm()


def test_synchronised_norms_weigh_processes_by_their_images(processes):
    # Five images on one, three on the other.
    expected, found = normalise(batch()[0]), [each["norm"] for each in processes]
    for key in ("outputs", "images"):
        assert_close(torch.cat([each[key] for each in found]), expected[key])
    assert_close(found[0]["weight"] + found[1]["weight"], expected["weight"])
    for each in found:
        assert_close(each["running_var"], expected["running_var"])


def test_a_distributed_shell_says_what_to_explain(processes):
    for each in processes:
        assert "DistributedDataParallel" in each["refusal"]
        assert "explain the model in it, its attribute 'module'" in each["refusal"]


def test_synchronisation_changes_nothing_on_one_process(family):
    model, x = settled(family), pictures(family)
    other = synchronise_batch_norm(copy.deepcopy(model))
    assert torch.equal(explain(other, x, 1).weights, explain(model, x, 1).weights)
    assert torch.equal(other.train()(x), model.train()(x))
    assert other.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    "convert",
    [torch.nn.SyncBatchNorm.convert_sync_batchnorm, timm.layers.convert_sync_batchnorm],
    ids=["torch", "timm"],
)
def test_norms_stay_uncentred_when_converted_to_synchronised_ones(family, convert):
    model, x = settled(family), pictures(family)
    expected = explain(model, x, 1)
    converted = convert(model)
    found = explain(converted, x, 1)
    assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in converted.modules())
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.weights, expected.weights)
