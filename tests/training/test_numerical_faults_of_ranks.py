"""Two processes: a fault on one of them makes both repeat the iteration, or both stop with the same words."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import sys
import torch
import torch.distributed as dist
from nnunet_lite.exceptions import NumericalError
from nnunet_lite.training.numerical_faults import FiniteUpdates

rank, port = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
nan = float("nan")


class Trainer:
    current_epoch, grad_scaler, disable_checkpointing, device = 0, None, False, torch.device("cpu")

    def __init__(self):
        torch.manual_seed(0)
        self.network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
        self.loss = torch.nn.MSELoss()
        self.optimizer = torch.optim.SGD(self.network.parameters(), 0.1)
        self.epoch_outputs, self.said = [], []
        self.spoil = 1.0

    def compute_gradients(self, data, target, in_float32=False):
        self.optimizer.zero_grad()
        loss = self.loss(self.network(data * (1.0 if in_float32 else self.spoil)), target)
        loss.backward()
        return loss.detach(), torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)

    def print_to_log_file(self, line):
        self.said.append(line)

    def _save_interrupted(self):
        self.said.append("saved")


trainer = Trainer()
updates = FiniteUpdates(trainer)
data, target = torch.ones(3, 2) * (rank + 1), torch.ones(3, 1)
trainer.spoil = nan if rank == 1 else 1.0
updates.step(data, target, [f"case_{rank}"])
assert ["float32" in line for line in trainer.said] == [True], trainer.said
weights = trainer.network.module.weight.detach().clone()
gathered = [torch.empty_like(weights) for _ in range(2)]
dist.all_gather(gathered, weights)
assert torch.isfinite(weights).all() and torch.equal(*gathered)
if rank == 1:
    data[1, 0] = nan
try:
    updates.step(data, target, [f"case_{rank}", "x", "y"])
except NumericalError as error:
    assert "the image of case x holds NaN" in str(error), error
    assert trainer.said[-1] == "saved"
    assert torch.equal(trainer.network.module.weight, weights)
    print("stopped")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_all_ranks_decide_alike(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = tmp_path / "rank.py"
    script.write_text(_CODE)
    ranks = [
        subprocess.Popen([sys.executable, str(script), str(rank), port], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        results = [process.communicate(timeout=120) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [(process.returncode, out.strip()) for process, (out, _) in zip(ranks, results, strict=True)] == [
        (0, b"stopped")
    ] * 2, results
