"""Memory that a network holds: for its backward pass, and at the height of a run."""

import json
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pathology.benchmark.contender import Contender
from pathology.benchmark.timing import Run

MIB = 2**20


def kept_mib(contender: Contender) -> tuple[float, float]:
    """What a forward pass in training keeps for its backward pass.

    Measured on one batch and on the batch doubled: what grows is each image's.

    Returns:
        MiB for each image, and MiB once, however many images there are.
    """
    single, double = _kept(contender, 1) / MIB, _kept(contender, 2) / MIB
    return (double - single) / len(contender.images), 2 * single - double


def _kept(contender: Contender, times: int) -> int:
    """Bytes kept for ``times`` batches together.

    What the network itself stores is left out; every storage counts once, however many tensors
    show parts of it.
    """
    network = contender.network.train()
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        # Not the tensor itself: an output that its own graph holds is never freed.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = contender.loss(times)
    del loss  # Not earlier: what it holds would be freed, and its addresses given out again.
    return sum(kept.values())


def peak_mib(run: Run, device: torch.device) -> float:
    """The most that ``run`` allocates at a time, beyond what was there before it, in MiB.

    On a GPU, the peak of torch's caching allocator. On a CPU, that of the blocks which torch's
    allocator gave out and took back during the run, in order, as its profiler records them: tensors
    and the workspaces of operations, of compiled code, too; not what libraries such as oneDNN
    allocate by themselves. Run it once before: first uses are not the rule.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    # The profiler's library announces itself on stderr unless told before its first use.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(errors="replace"))["traceEvents"]
    events = [event for event in events if event.get("name") == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    return peak / MIB
