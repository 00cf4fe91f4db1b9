"""A published network trained further on our own pairs: what it would reach if its makers had known the degradation.

The frozen graph's convolutions, biases and PReLUs become a PyTorch network (FSRCNN with a pixel shuffle, as these
graphs have it), which learns from our recipe's patches by its loss, with Adam, a cosine and a moving average, for a
given CPU time; then it runs in the same runtime as ours, float32.

    python benchmarks/peers/tuned.py FSRCNN_x2 --data DIR --cpu-minutes 20 -o FSRCNN_x2-tuned.npz
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.runtime.openvino_ import compiled, core
from pipeline.train.data import Pairs, cached_pairs
from pipeline.train.losses import LOSSES, border_weight, inner, psnr_gain_db
from pipeline.train.recipe import RECIPES, load_recipe
from pipeline.wire.frames import Size

SCALE = 2
RATE = 1e-3
BATCH = 12


class Chain(nn.Module):
    """Convolutions of stride 1 with PReLU or ReLU between them, a pixel shuffle, a bias; (N, 1, H, W) → (N, 1, 2H, 2W).

    `weights` holds for layer i: w{i} (out, in, k, k), b{i} (out,), a{i} (out,) the slope below 0 (all but the last; 0:
    ReLU).
    """

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self.depth = sum(name.startswith("w") for name in weights)
        self.all = nn.ParameterDict({name: nn.Parameter(torch.from_numpy(x.copy())) for name, x in weights.items()})

    def forward(self, y_N1HW: Tensor) -> Tensor:
        x = y_N1HW
        for i in range(self.depth):
            weight = self.all[f"w{i}"]
            last = i == self.depth - 1
            x = functional.conv2d(x, weight, None if last else self.all[f"b{i}"], padding=weight.shape[2] // 2)
            if not last:
                x = functional.prelu(x, self.all[f"a{i}"])
        return functional.pixel_shuffle(x, SCALE) + self.all[f"b{self.depth - 1}"]


def chain_of(path: Path) -> Chain:
    """Return a frozen FSRCNN as a PyTorch network with the same output."""
    weights: dict[str, NDArray[np.float32]] = {}
    layer = -1
    for node in core().read_model(str(path)).get_ordered_ops():
        kind = node.get_type_name()
        inputs = [pin.get_source_output().get_node() for pin in node.inputs()]
        constants = [x.get_data() for x in inputs if x.get_type_name() == "Constant"]
        if kind == "Convolution":
            layer += 1
            weights[f"w{layer}"] = constants[0]
        elif kind == "Add" and constants:
            weights[f"b{layer}"] = constants[0].reshape(-1)
        elif kind == "Multiply" and constants and constants[0].size > 1:
            weights[f"a{layer}"] = constants[0].reshape(-1)  # slope × (x − |x|), halved by a Multiply of one value
    return Chain(weights).eval()


def tune(net: Chain, pairs: Pairs, *, cpu_s: float, seed: int, report: Callable[[int, float], None]) -> Chain:
    """Return the moving average of `net` trained for `cpu_s` seconds of CPU time, whoever else runs."""
    lossy, weight = LOSSES["relative"], border_weight(pairs.high.shape[1], SCALE)
    adam = torch.optim.Adam(net.parameters(), RATE)
    average = {name: p.detach().clone() for name, p in net.named_parameters()}
    rng = np.random.default_rng(seed)
    start_s, done = time.process_time(), 0
    net.train()
    while (share := (time.process_time() - start_s) / cpu_s) < 1:
        for group in adam.param_groups:
            group["lr"] = RATE * min(1.0, (done + 1) / 200) * 0.5 * (1 + math.cos(math.pi * share))
        low, base, true = tensors(pairs, np.sort(rng.integers(0, len(pairs), BATCH)), turned=rng.random(3) < 0.5)
        loss = lossy(*(x * weight for x in (net(low), true, base)))
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        done += 1
        with torch.no_grad():
            for name, p in net.named_parameters():
                average[name].lerp_(p, 1 - min(0.999, done / (done + 10)))
        report(done, share)
    net.load_state_dict(average)
    return net.eval()


def gain_db(net: Chain, held: Pairs) -> float:
    """Return the mean gain over bicubic on 768 held-out patches, spread evenly."""
    chosen = np.unique(np.linspace(0, len(held) - 1, 768).astype(int))
    with torch.inference_mode():
        low, base, true = tensors(held, chosen, turned=np.zeros(3, np.bool_))
        out = torch.cat([net(part) for part in low.split(64)])
        return float(psnr_gain_db(*(inner(x, SCALE) for x in (out, true, base))).mean())


def tensors(pairs: Pairs, chosen_N: NDArray[np.int64], *, turned: NDArray[np.bool_]) -> tuple[Tensor, Tensor, Tensor]:
    """Return (low, bicubic, true) of patches, (N, 1, H, W) in 0..1; flipped down, flipped right, transposed."""
    low, high = pairs.low[chosen_N], pairs.high[chosen_N]
    if turned[0]:
        low, high = low[:, ::-1], high[:, ::-1]
    if turned[1]:
        low, high = low[:, :, ::-1], high[:, :, ::-1]
    if turned[2]:
        low, high = low.transpose(0, 2, 1), high.transpose(0, 2, 1)
    side = (high.shape[2], high.shape[1])
    base = np.stack([cv2.resize(np.ascontiguousarray(x), side, interpolation=cv2.INTER_CUBIC) for x in low])
    low_t, base_t, true_t = (torch.from_numpy(np.array(x))[:, None].float() / 255 for x in (low, base, high))
    return low_t, base_t, true_t


class TunedNetwork:
    """A tuned network made ready for one frame size in OpenVINO: uint8 luma in and out, as FrozenNetwork."""

    def __init__(self, weights: Path, size: Size, *, threads: int) -> None:
        with np.load(weights) as file:
            net = Chain({name: file[name] for name in file.files}).eval()
        example = torch.zeros(1, 1, size.height_px, size.width_px)
        model = ov.convert_model(net, example_input=example, input=[1, 1, size.height_px, size.width_px])
        steps = ov.preprocess.PrePostProcessor(model)
        steps.input().tensor().set_element_type(ov.Type.u8)
        steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
        model = steps.build()
        op = ov.opset13
        codes = op.multiply(op.clamp(model.get_results()[0].input_value(0), 0.0, 1.0), np.float32(255))
        model = ov.Model([op.convert(op.round(codes, "half_to_even"), "u8")], model.get_parameters(), weights.stem)
        self._request = compiled(model, threads, precision="f32").create_infer_request()

    def upscale(self, y_NHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return luma (N, H, W) up-scaled to (N, 2H, 2W)."""
        return np.stack([self._request.infer([y_HW[None, None]])[0][0, 0] for y_HW in y_NHW])


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("graph", type=Path, help="frozen graph (.pb) of an FSRCNN")
    options.add_argument("--data", type=Path, required=True, help="training data, as of `limpid train`")
    options.add_argument("--cpu-minutes", type=float, default=20.0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--cache", type=Path, default=Path("~/.cache/limpid/pairs").expanduser())
    options.add_argument("-o", "--output", type=Path, required=True)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    recipe = load_recipe(RECIPES / "f_edsr_x2.yaml")
    pairs, held = cached_pairs(chosen.data, recipe.pairs, chosen.cache, lambda what, done: print(what, f"{done:.0%}"))
    net = chain_of(chosen.graph)
    print(f"as shipped: {gain_db(net, held):+.3f} dB over bicubic, held out", flush=True)
    told = 0.0

    def report(step: int, share: float) -> None:
        nonlocal told
        if share >= told:
            told += 0.05
            print(f"{share:.0%}: step {step}", flush=True)

    net = tune(net, pairs, cpu_s=60 * chosen.cpu_minutes, seed=chosen.seed, report=report)
    print(f"tuned: {gain_db(net, held):+.3f} dB over bicubic, held out")
    np.savez(chosen.output, **{name: p.detach().numpy() for name, p in net.all.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
