"""What each of several processes does in ``test_running.py``: imported by them, so it is light."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain import explain
from bcos_vit.layers import BcosBatchNorm2d, synchronise_batch_norm
from bcos_vit.models import BcosConvNeXt, BcosVisionTransformer

PROCESSES = 2


def build(kind):
    """A tiny model, the same in every process; its logits are of order one."""
    torch.manual_seed(0)
    options = {"num_classes": 3, "logit_bias": 0.0, "temperature": 0.01}
    if kind == "vit":
        model = BcosVisionTransformer(
            img_size=8, patch_size=4, embed_dim=16, depth=1, num_heads=2, **options
        )
    else:
        model = BcosConvNeXt((1, 1), (8, 16), norm_layer="batch", ls_init_value=1.0, **options)
    return model.double().train()


def batch():
    """Eight images and what is wanted of them."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(8, 6, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.rand(8, 3, generator=generator, dtype=torch.float64)


def train(model, images, wanted):
    """One step; outputs before it, gradients, and the state after it."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    outputs = model(images)
    (outputs - wanted).square().mean().backward()
    optimiser.step()
    inner = getattr(model, "module", model)
    return {
        "outputs": outputs.detach(),
        "gradients": {name: p.grad for name, p in inner.named_parameters()},
        "state": inner.state_dict(),
    }


def normalise(images):
    """Output, gradients and running variance of one synchronised norm."""
    norm = synchronise_batch_norm(BcosBatchNorm2d(6)).double().train()
    images.requires_grad_()
    outputs = norm(images)
    # Every process has a loss of its own; each depends on the images of all.
    (outputs.pow(3) * images.detach()).sum().backward()
    return {
        "outputs": outputs.detach(),
        "images": images.grad,
        "weight": norm.weight.grad,
        "running_var": norm.running_var,
    }


def work(rank, folder):
    """Train, normalise and try to explain as process ``rank``; results go to ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    images, wanted = (each.chunk(PROCESSES)[rank] for each in batch())
    results = {}
    for kind in ("vit", "cnn"):
        model = DistributedDataParallel(synchronise_batch_norm(build(kind)))
        results[kind] = train(model, images, wanted)
    results["apart"] = train(DistributedDataParallel(build("cnn")), images, wanted)
    results["norm"] = normalise(batch()[0].split([5, 3])[rank])
    try:
        explain(model.eval(), images)
    except NotExplainableError as error:
        results["refusal"] = str(error)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
