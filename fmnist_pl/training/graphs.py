"""The steps of a chunk as one CUDA graph: a GPU is given thousands of kernels by one launch.

The nets are so small that a GPU is done with a kernel before the CPU has sent the next one. A graph
is recorded once from the same steps and repeats them on other images, with the same bits.
"""

from collections.abc import Callable, Sequence

import lightning as L
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from fmnist_pl.data.datamodule import Batch
from fmnist_pl.model.classifier import Classifier, Outputs

Replay = Callable[[], Outputs]
Steps = Callable[[Sequence[Batch], Optimizer], Outputs]
PRECISIONS = ("32-true", "bf16-mixed")


class CUDAGraphs(L.Callback):
    """Has a run's chunks recorded and replayed where that holds: on one CUDA device.

    The optimizer must be one whose step launches the same every time: SGD's, or a fused one.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        if self.holds(trainer):
            replayed = Replayed(pl_module.train_chunk, self.record, self.warm_up)
            pl_module.train_chunk = replayed  # type: ignore[method-assign]

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.__dict__.pop("train_chunk", None)  # and with it the graphs' memory

    def holds(self, trainer: L.Trainer) -> bool:
        assert isinstance(trainer.lightning_module, Classifier)
        on_cuda = trainer.strategy.root_device.type == "cuda"
        in_chunks = not trainer.lightning_module.automatic_optimization
        optimizer = trainer.optimizers[0]
        # Others count their steps on the CPU, unless told from the first that they are recorded.
        recordable = isinstance(optimizer, SGD) or bool(optimizer.defaults.get("fused"))
        return on_cuda and in_chunks and recordable and trainer.precision in PRECISIONS

    def warm_up(self, work: Replay) -> Outputs:
        """Do work once as it is, on another stream than the default one, as recording wants it."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        if current != torch.cuda.default_stream():  # a run among others has its own
            return work()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            outputs = work()
        current.wait_stream(stream)
        return outputs

    def record(self, work: Replay) -> Replay:
        """Take down what work would launch, without doing it.

        Returns:
            Does it; what it returns is overwritten by the next time.
        """
        graph = torch.cuda.CUDAGraph()
        # Products have memory to work in, which the process keeps by stream: it must be this
        # graph's alone, since others may be replayed at the same time and be gone earlier.
        torch._C._cuda_clearCublasWorkspaces()
        with torch.cuda.graph(graph):
            outputs = work()
        torch._C._cuda_clearCublasWorkspaces()

        def replay() -> Outputs:
            graph.replay()
            return outputs

        return replay


class Replayed:
    """Takes the place of `Classifier.train_chunk`.

    Of every shape of chunk the first is done as it is, which warms up; the second is recorded.

    Args:
        steps: `Classifier.train_chunk`, which works in the same tensors every time.
        record, warm_up: as those of `CUDAGraphs`.
    """

    def __init__(
        self,
        steps: Steps,
        record: Callable[[Replay], Replay],
        warm_up: Callable[[Replay], Outputs],
    ) -> None:
        self.steps, self.record, self.warm_up = steps, record, warm_up
        # By the sizes of its batches: images and labels of a chunk, and what works on them.
        self.recorded: dict[tuple[int, ...], tuple[list[Tensor], Replay] | None] = {}

    def __call__(self, chunk: Sequence[Batch], optimizer: Optimizer) -> Outputs:
        """As `Classifier.train_chunk`."""
        sizes = tuple(len(labels) for _, labels in chunk)
        whole = [torch.cat(parts) for parts in zip(*chunk, strict=True)]  # images, labels

        def work() -> Outputs:
            images, labels = (tensor.split(sizes) for tensor in whole)
            return self.steps(list(zip(images, labels, strict=True)), optimizer)

        if sizes not in self.recorded:
            self.recorded[sizes] = None
            return self.warm_up(work)
        if self.recorded[sizes] is None:
            self.recorded[sizes] = whole, self.record_with(optimizer, work)
        kept, replay = self.recorded[sizes] or ([], work)
        for to, given in zip(kept, whole, strict=True):
            to.copy_(given)
        logits, labels, penalties = (tensor.clone() for tensor in replay())
        return logits, labels, penalties

    def record_with(self, optimizer: Optimizer, work: Replay) -> Replay:
        """Record, while the optimizer says that it can be; checkpoints are for any device."""
        groups = [group for group in optimizer.param_groups if "capturable" in group]
        for group in groups:
            group["capturable"] = True
        try:
            return self.record(work)
        finally:
            for group in groups:
                group["capturable"] = False
