"""Networks as they are measured."""

import pytest
import torch
from torch import nn

from pathology.benchmark.contender import Contender, contenders, conventional, grid_side, is_convnet
from pathology.benchmark.memory import kept_mib, peak_mib
from pathology.benchmark.timing import LEAST_ROUNDS, WARM_UP, Ratio, take_turns

CPU = torch.device("cpu")


class Network(nn.Module):
    """Two linear layers, the weight of the second doubled for all images."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(7, 48))
        self.second = nn.Parameter(torch.randn(5, 7))

    def forward(self, x):
        x = x.flatten(1)
        hidden = x @ self.first.t() + x @ self.first.t()
        return hidden @ (2 * self.second).t()


# --- memory


def test_kept_memory_is_exact_and_counts_each_storage_once():
    image, once = kept_mib(Contender(Network(), torch.rand(3, 3, 4, 4)))
    # Float32 per image: pixels, hidden units, logarithms of probabilities; and an int64 label.
    assert image * 2**20 == (48 + 7 + 5) * 4 + 8
    # Once: the second weight's double, but not the weights themselves; how much all labels weigh.
    assert once * 2**20 == (5 * 7 + 1) * 4


def test_peak_memory_is_the_height_of_what_lives_at_a_time():
    block = 2**18  # a MiB of float32

    def run():
        first = torch.empty(block)
        second = torch.empty(2 * block)
        del first
        return second, torch.empty(block), torch.empty(block)  # 2 + 1 + 1, with a 1 gone before

    before = torch.empty(5 * block)
    assert peak_mib(run, CPU) == 4
    assert peak_mib(lambda: before.zero_(), CPU) == 0


def test_peak_memory_counts_what_an_operation_needs_for_itself():
    x = torch.rand(2**18)
    assert peak_mib(lambda: (x + 1).mul_(2).sum(), CPU) == pytest.approx(1, abs=1e-3)


def test_the_peak_of_a_training_step_holds_gradients():
    contender = Contender(Network(), torch.rand(3, 3, 4, 4))
    contender.train()
    gradients = (7 * 48 + 5 * 7) * 4 / 2**20
    assert gradients < peak_mib(contender.train, CPU) < 6 * gradients


# --- times


def test_runs_take_turns_after_warm_up():
    calls = []
    a, b, c = (lambda name=name: calls.append(name) for name in "abc")
    times = take_turns((a, b, c), 0, CPU)
    assert calls == list("abc") * (WARM_UP + LEAST_ROUNDS)
    assert [len(each) for each in times] == [LEAST_ROUNDS] * 3


def test_a_ratio_is_of_neighbours_and_its_quartiles_enclose_it():
    # A machine that slows down tenfold does so for both.
    ratio = Ratio.of([1.0, 20.0, 300.0, 4.0, 5.0], [1.0, 10.0, 100.0, 1.0, 1.0])
    assert (ratio.low, ratio.median, ratio.high) == (2, 3, 4)


# --- networks


def test_each_has_images_of_its_own_channels_in_its_layout():
    ours, twin = contenders("bcos_resnet18", 32, 2, CPU, layout="channels_last")
    assert (ours.images.shape, twin.images.shape) == ((2, 6, 32, 32), (2, 3, 32, 32))
    assert torch.equal(ours.images[:, 3:], 1 - twin.images)
    for contender in (ours, twin):
        weight = next(p for p in contender.network.parameters() if p.ndim == 4 and p.shape[-1] > 1)
        for tensor in (contender.images, weight):
            assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert contender.dtype == torch.float32


def test_signals_stay_of_order_one_through_many_norms():
    ours, twin = contenders("bcos_resnet18", 32, 2, CPU)
    for contender in (ours, twin):
        momenta = {m.momentum for m in contender.network.modules() if hasattr(m, "momentum")}
        assert momenta == {0.1}
        variances = [v for k, v in contender.network.named_buffers() if k.endswith("running_var")]
        assert not any(torch.equal(v, torch.ones_like(v)) for v in variances)


def test_steps_leave_the_network_as_it_was_made():
    contender = Contender(Network(), torch.rand(3, 3, 4, 4))
    before = contender.network.first.detach().clone()
    for _ in range(20):
        contender.train()
    change = (contender.network.first - before).abs().max()
    assert 0 < change < 1e-6


def test_a_compiled_one_is_compiled_for_its_sizes(monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch, "compile", lambda network, **options: compiled.append(options) or network
    )
    Contender(Network(), torch.rand(3, 3, 4, 4), mode="compiled").train()
    assert compiled == [{"dynamic": False}]


def test_twins_of_token_networks_get_a_grid_of_the_images():
    assert not is_convnet("bcos_swin_tiny_patch4_window7_224")
    assert is_convnet("bcos_convnext_tiny")
    assert conventional("bcos_vit_tiny_patch16_224", 32).patch_embed.grid_size == (2, 2)


@pytest.mark.parametrize(("size", "side"), [(224, 14), (299, 19), (32, 2), (1, 1)])
def test_positions_of_16_px_cover_the_image(size, side):
    assert grid_side(size) == side
