#!/usr/bin/env python3
"""CPU seconds of the official training step, one thread: the twin of benches/train.rs.

    tools/official_step.py DM-IMPROVES-AT [ARCH [BATCH [STEPS]]]
"""

import sys
import time
from pathlib import Path

arch = sys.argv[2] if len(sys.argv) > 2 else "wrn-10-1-swish"
batch, steps = (int(text) for text in (sys.argv[3:] + ["64", "5"][len(sys.argv[3:]):]))
sys.path.insert(0, str(Path(__file__).parent))
from official_import import import_official  # noqa: E402

import_official(sys.argv[1])
import torch  # noqa: E402
from core.models import create_model  # noqa: E402
from core.utils import set_bn_momentum  # noqa: E402
from gowal21uncovering.utils.trades import trades_loss  # noqa: E402
from gowal21uncovering.utils.watrain import ema_update  # noqa: E402

torch.set_num_threads(1)
info = {"data": "cifar10", "num_classes": 10, "mean": [0.5] * 3, "std": [0.5] * 3}
model = create_model(arch, False, info, torch.device("cpu"))
averaged = create_model(arch, False, info, torch.device("cpu"))
set_bn_momentum(model, momentum=0.01)
free = [p for n, p in model.named_parameters() if "batchnorm" in n]
decayed = [p for n, p in model.named_parameters() if "batchnorm" not in n]
optimizer = torch.optim.SGD([{"params": decayed}, {"params": free, "weight_decay": 0.0}], lr=1e-4,
                            weight_decay=5e-4, momentum=0.9, nesterov=True)
x, y = torch.rand(batch, 3, 32, 32), torch.arange(batch) % 10
for step in range(steps):
    begun = time.process_time()
    loss, _ = trades_loss(model, x, y, optimizer, step_size=2 / 255, epsilon=8 / 255,
                          perturb_steps=10, beta=5.0, attack="linf-pgd", label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    ema_update(averaged, model, 100 + step, decay_rate=0.995, warmup_steps=0)
    print(f"{arch} {batch} official {time.process_time() - begun:.4f}", flush=True)
