"""Training steps whose data lie on the device: pairs, orders and losses stay there, and a step is one CUDA graph.

The networks are so small that starting their three hundred kernels takes longer than running them. So a step is
recorded once for each precision and replayed, a few dozen steps are ordered at a time, and the host waits for the
device once for all of them. What a step computes is what `loop` computes on the CPU, except that the bicubic up-scale
is made once and turned with its patch, which moves a few of its pixels by one code value.

Shapes: K steps ordered at once, N patches a step, P side of a low-resolution patch, s scale.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.models.fedsr import FEdsr, bicubic
from pipeline.train.data import Pairs
from pipeline.train.losses import Loss, border_weight

DEVICES = ("auto", "cpu", "cuda")
STEPS_AT_ONCE = 50  # K at most: the host waits for the device after so many
RESERVE_BYTES = 4 << 30  # of the device's memory that the pairs leave to networks and their activations

_EAGER_STEPS = 3  # before a recording: they make Adam's state and let cuDNN choose its algorithms
_RECORDING = threading.Lock()  # one graph is recorded at a time in a process


def chosen_device(name: str) -> torch.device:
    """Return the device that a name of DEVICES means; "auto" is CUDA where there is one.

    Raises:
        ConfigError: "cuda", and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here", where="device", hint="use cpu or auto")
    return torch.device(name)


def steps_at_once(device: torch.device) -> int:
    """Return how many steps the loop orders at a time: on the CPU each by itself."""
    return STEPS_AT_ONCE if device.type == "cuda" else 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What the next K steps do."""

    chosen: NDArray[np.int64]  # (K, N) numbers of patches
    turned: NDArray[np.bool_]  # (K, 3) whether they are flipped upside down, then left to right, then transposed
    rates: NDArray[np.float64]  # (K,) Adam's learning rate
    follow: NDArray[np.float64]  # (K,) share of the way that the average goes towards the weights

    def __len__(self) -> int:
        return len(self.rates)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidentPairs:
    """Pairs with their bicubic up-scale, uint8: on the device, or in the host's memory where they do not fit there.

    Several runs may share them.
    """

    low: Tensor  # (M, P, P)
    base: Tensor  # (M, s·P, s·P), the up-scale of low
    true: Tensor  # (M, s·P, s·P)

    def __len__(self) -> int:
        return len(self.low)


def resident(pairs: Pairs, device: torch.device) -> ResidentPairs:
    """Return `pairs` for `DeviceSteps` on `device`."""
    scale = pairs.high.shape[1] // pairs.low.shape[1]
    home = _home(pairs.low.nbytes + 2 * pairs.high.nbytes, device)
    low, base, true = (
        torch.empty(x.shape, dtype=torch.uint8, device=home) for x in (pairs.low, pairs.high, pairs.high)
    )
    for start in range(0, len(pairs), 1024):
        part = slice(start, start + 1024)
        low[part] = torch.from_numpy(np.array(pairs.low[part]))
        base[part] = torch.from_numpy(np.stack([bicubic(patch, scale) for patch in pairs.low[part]]))
        true[part] = torch.from_numpy(np.array(pairs.high[part]))
    return ResidentPairs(low=low, base=base, true=true)


class DeviceSteps:
    """The steps of one run; `net`, `optimizer` and `average` are changed in place.

    On a CUDA device they run in the caller's stream, or in one of their own where that is the default stream, which
    cannot record. Whoever trains several runs at once gives each thread a stream, and their kernels run side by side.
    """

    def __init__(
        self,
        net: FEdsr,
        optimizer: torch.optim.Adam,
        average: Mapping[str, Tensor],
        pairs: ResidentPairs,
        *,
        batch: int,
        loss: Loss,
        graphs: bool,
    ) -> None:
        """Make room for the orders.

        Args:
            batch: N.
            graphs: whether steps are recorded and replayed; otherwise each kernel is started by the host.
        """
        self._net, self._optimizer, self._pairs, self._loss = net, optimizer, pairs, loss
        self._parameters: list[Tensor] = [parameter for _, parameter in net.named_parameters()]
        self._average = [average[name] for name, _ in net.named_parameters()]
        device = self._parameters[0].device
        self._device = device
        self._stream = _stream(device)
        self._records = graphs and device.type == "cuda"
        self._graphs: dict[bool, torch.cuda.CUDAGraph] = {}  # by `half`
        self._num_eager = {False: 0, True: 0}
        # Graphs read and write these places. `_row` is the number of the next step in the order.
        sides = [x.shape[1] for x in (pairs.low, pairs.base, pairs.true)]
        self._patches_KN1HW = [
            torch.zeros(STEPS_AT_ONCE, batch, 1, side, side, dtype=torch.uint8, device=device) for side in sides
        ]
        self._row = torch.zeros(1, dtype=torch.int64, device=device)
        self._rate_K, self._follow_K, self._losses_K = (torch.zeros(STEPS_AT_ONCE, device=device) for _ in range(3))
        self._weight = border_weight(sides[1], sides[1] // sides[0]).to(device)
        self._rate = torch.zeros((), device=device)
        for group in optimizer.param_groups:
            group["lr"] = self._rate
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def advance(self, order: Order, *, half: bool) -> list[float]:
        """Do the steps of `order` (at most STEPS_AT_ONCE), in bfloat16 where `half`; wait; return their losses."""
        with torch.cuda.stream(self._stream):
            self._place(order)
            for _ in range(len(order)):
                self._next(half)
            losses: list[float] = self._losses_K[: len(order)].tolist()
        return losses

    def _place(self, order: Order) -> None:
        """Put patches, rates and shares of the steps where `_step` finds them."""
        num = len(order)
        chosen = torch.from_numpy(order.chosen.reshape(-1))
        turned_K3 = torch.from_numpy(order.turned).to(self._device)
        sources = (self._pairs.low, self._pairs.base, self._pairs.true)
        for place_KN1HW, source in zip(self._patches_KN1HW, sources, strict=True):
            patches = source.index_select(0, chosen.to(source.device)).to(self._device)
            place_KN1HW[:num] = _turned(patches.reshape(num, *place_KN1HW.shape[1:]), turned_K3)
        self._rate_K[:num] = torch.from_numpy(order.rates).to(self._device)
        self._follow_K[:num] = torch.from_numpy(order.follow).to(self._device)
        self._row.zero_()

    def _next(self, half: bool) -> None:
        """Do one step: by its graph where there is one, and record that after a few steps without."""
        if self._records and self._num_eager[half] >= _EAGER_STEPS and half not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on meanwhile, as long as they record nothing.
            with _RECORDING, torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._step(half)
            self._graphs[half] = graph
        if half in self._graphs:
            self._graphs[half].replay()
        else:
            self._step(half)
            self._num_eager[half] += 1

    def _step(self, half: bool) -> None:
        """One step, of which the host learns nothing; what a graph holds."""
        low, base, true = (x.index_select(0, self._row)[0].float() / 255 for x in self._patches_KN1HW)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            residual = self._net(low)
        loss = self._loss(*(x * self._weight for x in (base + residual.float(), true, base)))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._rate.copy_(self._rate_K.index_select(0, self._row)[0])
        self._optimizer.step()
        with torch.no_grad():
            # A lerp whose share lies on the device: torch._foreach_lerp_ takes one of the host, or many tensors.
            way = torch._foreach_sub(self._parameters, self._average)
            torch._foreach_mul_(way, self._follow_K.index_select(0, self._row)[0])
            torch._foreach_add_(self._average, way)
        self._losses_K.index_copy_(0, self._row, loss.detach()[None])
        self._row += 1


def _home(num_bytes: int, device: torch.device) -> torch.device:
    """Return where so many bytes lie: on the device where they fit, else in the host's memory."""
    fits = device.type != "cuda" or num_bytes + RESERVE_BYTES <= torch.cuda.mem_get_info(device)[0]
    return device if fits else torch.device("cpu")


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return the current stream of a CUDA device, or a new one where that is the default stream."""
    if device.type != "cuda":
        return None
    current = torch.cuda.current_stream(device)
    if current != torch.cuda.default_stream(device):
        return current
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _turned(x_KN1HW: Tensor, turned_K3: Tensor) -> Tensor:
    """Return square patches turned step by step as `Order.turned` says."""
    down, right, lying = (turned_K3[:, i, None, None, None, None] for i in range(3))
    x_KN1HW = torch.where(down, x_KN1HW.flip(3), x_KN1HW)
    x_KN1HW = torch.where(right, x_KN1HW.flip(4), x_KN1HW)
    return torch.where(lying, x_KN1HW.transpose(3, 4), x_KN1HW)
