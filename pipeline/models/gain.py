"""How much an online training can bring: 1 → 20 → 20 → 20 → 1, sigmoid, MSE with L2 (spec §1).

In: the PSNR of the current model on a new scene before training, scaled to 0–1. Out: the largest gain in dB that a long
run reached there. *Chosen*: sigmoids behind the three hidden layers, the output is linear and scaled; fitted by L-BFGS
on all points at once, which takes a fraction of a second, so what ships is the data (gain.json, made by
publisher/coldstart.py) and not its fit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import ModelFormatError

SHIPPED = Path(__file__).parent / "gain.json"
WIDTH = 20
PSNR_DB = (20.0, 50.0)  # what 0 and 1 of the input stand for
GAIN_DB = 3.0  # what 1 of the output stands for
L2 = 1e-5  # of all weights, biases left out
_STEPS = 80
_SEED = 1

Points = Sequence[tuple[float, float]]  # (PSNR before, largest gain), both in dB


class GainNet(nn.Module):
    """PSNR in 0–1 (N, 1) to gain in 0–1 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, WIDTH),
            nn.Sigmoid(),
            nn.Linear(WIDTH, WIDTH),
            nn.Sigmoid(),
            nn.Linear(WIDTH, WIDTH),
            nn.Sigmoid(),
            nn.Linear(WIDTH, 1),
        )

    def forward(self, x_N1: Tensor) -> Tensor:
        out: Tensor = self.layers(x_N1)
        return out


class GainPredictor:
    """THp: the largest gain to expect of training, by the model's PSNR before it."""

    def __init__(self, net: GainNet, points: Points) -> None:
        self._net = net
        self._low_db, self._high_db = min(p for p, _ in points), max(p for p, _ in points)

    def __call__(self, psnr_db: float) -> float:
        """Return the gain in dB, at least 0. Outside of the data's range the nearest end decides."""
        inside_db = min(max(psnr_db, self._low_db), self._high_db)
        with torch.no_grad():
            return max(0.0, float(self._net(_scaled([inside_db]))) * GAIN_DB)


def fit(points: Points) -> GainPredictor:
    """Return the predictor fitted to `points` (at least two); the same points give the same one."""
    assert len(points) >= 2, points
    x_N1 = _scaled([psnr for psnr, _ in points])
    y_N1 = torch.tensor([[gain / GAIN_DB] for _, gain in points])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        net = GainNet()
        for layer in net.layers:
            if isinstance(layer, nn.Linear):
                # Sigmoids pass a quarter of a slope on: the usual small weights would leave three of them flat.
                nn.init.xavier_normal_(layer.weight, gain=4.0)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=_STEPS, line_search_fn="strong_wolfe")
    weights = [p for p in net.parameters() if p.ndim == 2]

    def loss() -> Tensor:
        optimizer.zero_grad()
        penalty = torch.stack([w.square().sum() for w in weights]).sum()
        out: Tensor = (net(x_N1) - y_N1).square().mean() + L2 * penalty
        out.backward()  # type: ignore[no-untyped-call]
        return out

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return GainPredictor(net.eval(), points)


def load_points(path: Path = SHIPPED) -> list[tuple[float, float]]:
    """Return the cold-start data of a file: {"points": [{"psnr_db", "gain_db", …}, …]}.

    Raises:
        ModelFormatError: it is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["points"]
        points = [(float(point["psnr_db"]), float(point["gain_db"])) for point in found]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelFormatError(f"no cold-start data: {error}", where=str(path), hint="see models/gain.py") from error
    if len(points) < 2:
        raise ModelFormatError(f"{len(points)} points are too few to fit", where=str(path), hint="give two or more")
    return points


def _scaled(psnr_db: Sequence[float]) -> Tensor:
    low, high = PSNR_DB
    return torch.tensor([[(each - low) / (high - low)] for each in psnr_db])
