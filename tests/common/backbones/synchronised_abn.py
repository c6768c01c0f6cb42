"""Run by test_abn.py as one of two processes: InPlaceABNSync on a part of a batch, results to a file.

    python synchronised_abn.py RANK RENDEZVOUS_FILE INPUT_FILE OUTPUT_FILE
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

from common.backbones.abn import InPlaceABNSync, active_group, set_active_group


def run(norm: InPlaceABNSync, x: torch.Tensor, grad: torch.Tensor) -> dict[str, torch.Tensor]:
    """Forward and backward."""
    x = x.clone().requires_grad_()
    y = norm(x.clone())
    y.backward(grad)
    return {
        "y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad,
        "mean": norm.running_mean.clone(), "variance": norm.running_var.clone(),
    }  # fmt: skip


def main(rank: int, meeting: str, source: str, target: str) -> None:
    """On the rows that `source` gives this process: with the other process, then without it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    stored = torch.load(source)
    x, grad = (stored[name].split(stored["parts"])[rank] for name in ("x", "grad"))
    results = {}
    for case in ("together", "alone"):
        norm = InPlaceABNSync(x.shape[1]).double()
        norm.load_state_dict(stored["state"])
        if case == "alone":
            set_active_group(norm, active_group(rank == 0))
            norm.train(rank == 0)
        results[case] = run(norm, x, grad)
    torch.save(results, target)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
