"""A training step's forward and backward pass as CUDA graphs, one for each shape of batch.

Launching a step's several hundred kernels one by one takes a CPU ten times as long as they take a
GPU. A graph launches them at once. It always reads and writes the same addresses: windows are copied
to where it reads them, and gradients lie where it writes them.
"""

import collections
from collections.abc import Callable

import torch

Loss = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
_WARM_UP = 2
_AHEAD = 3  # steps that may wait on the device; more would make the clock lie


class StepGraphs:
    """Graphs of one loss and its gradients.

    Args:
        parameters: What may get a gradient. Those that the loss does not reach keep none.
        loss_of: Returns the loss of windows: first positions (B), sizes (B), places of a row. Shapes
            within it must not depend on values.
        device: A CUDA device.
        half: Type of mixed precision, or None.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        loss_of: Loss,
        device: torch.device,
        half: torch.dtype | None,
    ) -> None:
        self.parameters = parameters
        self.loss_of = loss_of
        self.device = device
        self.half = half
        self.gradients: list[torch.Tensor | None] = []
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, tuple[torch.Tensor, ...]]]
        self._graphs = {}
        self._waiting: collections.deque[torch.cuda.Event] = collections.deque()

    def capture(self, shapes: list[tuple[int, int]]) -> None:
        """Capture a graph for each (rows, length), the largest first; they share their memory."""
        pool = torch.cuda.graph_pool_handle()
        # Libraries keep a work space for each stream. Warming up on the stream that captures makes
        # them take it from outside of the graphs' memory, which is given back with the graphs.
        stream = torch.cuda.Stream(self.device)
        current = torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._reserve_gradients(*shapes[0])
        for rows, length in sorted(shapes, key=lambda shape: -shape[0] * shape[1]):
            with torch.cuda.stream(stream):
                begin, size = self._windows(rows, length)
                for _ in range(_WARM_UP):
                    self._work(begin, size, length)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                loss = self._work(begin, size, length)
            self._graphs[rows, length] = (graph, (begin, size, loss))
        current.wait_stream(stream)
        for parameter in self.parameters:
            parameter.grad = None
        torch.cuda.synchronize(self.device)

    def step(self, begin: torch.Tensor, size: torch.Tensor, length: int) -> torch.Tensor:
        """Return the loss of windows; its gradients are there once `give_gradients` was called."""
        graph, (at, sizes, loss) = self._graphs[len(begin), length]
        if len(self._waiting) >= _AHEAD:
            self._waiting.popleft().synchronize()
        at.copy_(begin, non_blocking=True)
        sizes.copy_(size, non_blocking=True)
        graph.replay()
        done = torch.cuda.Event()
        done.record()
        self._waiting.append(done)
        return loss.clone()

    def give_gradients(self) -> None:
        """Let parameters have the gradients of the last step."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient

    def _windows(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        begin = torch.zeros(rows, dtype=torch.int64, device=self.device)
        return begin, torch.full_like(begin, min(length, 2))

    def _reserve_gradients(self, rows: int, length: int) -> None:
        """Find out which parameters the loss reaches, and where their gradients will lie."""
        for parameter in self.parameters:
            parameter.grad = None
        self._work(*self._windows(rows, length), length)
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad = torch.zeros_like(parameter)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def _work(self, begin: torch.Tensor, size: torch.Tensor, length: int) -> torch.Tensor:
        made = [gradient for gradient in self.gradients if gradient is not None]
        if made:
            torch._foreach_zero_(made)  # pyright: ignore
        # Outside of the graph nothing may be kept that was made inside, such as halved weights.
        with torch.autocast("cuda", self.half, enabled=self.half is not None, cache_enabled=False):
            loss = self.loss_of(begin, size, length)
        loss.backward()
        return loss.detach()
