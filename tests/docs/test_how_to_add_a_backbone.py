"""The page on backbones: its network is trained, explained, and its checks see what is wrong."""

import sys

import pytest
import yaml
from torch import nn

from bcos_vit.errors import NotExplainableError
from pathology.explain.results.stored import load_explanation
from tests.docs.pages import run_page


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.delitem(sys.modules, "my_networks", raising=False)
        yield folder, run_page("how-to/add_a_backbone.md", folder, patch).names


def test_the_network_is_trained_by_its_name_and_explained_to_a_closed_ledger(ran):
    folder, _ = ran
    config = yaml.safe_load((folder / "runs" / "gated" / "config.yaml").read_text())
    assert config["model"]["model"] == "my_networks:gated_net"
    explanation = load_explanation(folder / "explained" / "test_000" / "tumour")
    assert explanation.ledger.is_closed
    assert explanation.ledger.gap < 1e-4


def test_the_check_passes_at_every_depth(ran):
    _, names = ran
    gaps = names["check"]("gated_net_wide")
    assert list(gaps) == ["pixels", "blocks.0", "blocks.1", "blocks.2", "head"]
    assert max(gaps.values()) < 1e-12


def gate(names, forward):
    """Another gate for the page's network, which declares itself."""
    parts = {"dynamic_linear": True, "forward": forward}
    return type("OtherGate", (names["my_networks"].Gate,), parts)


def test_a_factor_that_is_not_held_fails(ran, monkeypatch):
    _, names = ran
    other = gate(names, lambda self, x: x * self.weigh(x.mean((2, 3))).sigmoid()[:, :, None, None])
    monkeypatch.setattr(names["my_networks"], "Gate", other)
    with pytest.raises(AssertionError, match="gated_net: at pixels the sum leaves"):
        names["check"]("gated_net")


def test_a_cosine_that_is_not_held_passes_the_first_check_and_fails_the_second(ran, monkeypatch):
    _, names = ran
    other = gate(names, lambda self, x: x * x.abs() / x.norm(dim=1, keepdim=True))
    monkeypatch.setattr(names["my_networks"], "Gate", other)
    with pytest.raises(AssertionError, match="gated_net: a factor is not held"):
        names["check"]("gated_net")


def test_what_does_not_declare_itself_is_refused(ran, monkeypatch):
    _, names = ran
    silent = type("Silent", (nn.Module,), {"__init__": lambda self, chans: nn.Module.__init__(self),
                                           "forward": lambda self, x: x})  # fmt: skip
    monkeypatch.setattr(names["my_networks"], "Gate", silent)
    with pytest.raises(NotExplainableError, match=r"'blocks.0.gate' \(Silent\)"):
        names["check"]("gated_net")
