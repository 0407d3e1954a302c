"""torch's compiler stays unloaded until an optimizer makes a step, and everything works before and after."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys
import torch
from nnunet_lite.utilities.lean_torch import load_compiler_when_needed

load_compiler_when_needed()
weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
optimizer = torch.optim.SGD(weights[:2], 0.1, 0.9, nesterov=True)
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
weights[0].sum().backward()
optimizer.step()
optimizer.add_param_group({"params": [weights[2]]})
optimizer.load_state_dict(optimizer.state_dict())
load_compiler_when_needed()
print(round(float(weights[0][0].detach()), 3), len(optimizer.param_groups))
"""


def test_optimizers_work_without_the_compiler_and_with_it() -> None:
    run = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["False", "0.81", "2"]
