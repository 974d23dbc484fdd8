"""Runs side by side in one process: a GPU works for one while the next gives it more to do.

Each has a thread, but one alone works at any time: it gives its turn away when a chunk of its steps
is on its way. So what is global in Python and in PyTorch serves them one after the other, and each
has the bits that it has by itself.
"""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Semaphore, Thread, current_thread
from typing import Any, TypeVar

import lightning as L
import torch

from fmnist_pl.options.messages import UserError

Done = TypeVar("Done")


class Interrupted(BaseException):
    """A run must end; Lightning takes a KeyboardInterrupt in the main thread alone."""


class Draws:
    """What torch's global generators draw next: of the CPU, and of each GPU.

    A GPU's is exchanged, not set: a graph goes on drawing from the one that it was recorded with.
    """

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.gpus = [one.clone_state() for one in gpu_generators()]

    def resume(self) -> None:
        torch.set_rng_state(self.cpu)
        for generator, own in zip(gpu_generators(), self.gpus, strict=True):
            generator.graphsafe_set_state(own)

    def pause(self) -> None:
        self.cpu = torch.get_rng_state()


def gpu_generators() -> Sequence[torch.Generator]:
    if not torch.cuda.is_available():
        return ()
    torch.cuda.init()
    return torch.cuda.default_generators


class Turn(Thread):
    """One of several works, with what belongs to it while others work.

    Args:
        work: what is to be done.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.work, self.draws = work, Draws()
        self.given, self.taken_back = Semaphore(0), Semaphore(0)
        self.ended = self.interrupted = False
        self.result: Any = None
        self.raised: BaseException | None = None

    def run(self) -> None:
        self.given.acquire()
        try:
            if not self.interrupted:
                self.result = self.work()
        except BaseException as error:
            self.raised = error
        self.ended = True
        self.taken_back.release()

    def take(self) -> None:
        """Have it work until it gives its turn away or ends."""
        self.draws.resume()
        self.given.release()
        self.taken_back.acquire()
        self.draws.pause()

    def give(self) -> None:
        """By itself: let the others work.

        Raises:
            Interrupted: in place of its next turn.
        """
        self.taken_back.release()
        self.given.acquire()
        if self.interrupted:
            raise Interrupted

    def interrupt(self) -> None:
        """Have it end, and wait for that."""
        self.interrupted = True
        if self.is_alive():
            self.given.release()
            self.join()


def side_by_side(works: Sequence[Callable[[], Done]]) -> list[Done]:
    """Do them all, taking turns; what each returns.

    Raises:
        BaseException: what one of them raised, or this thread, after the others have been ended.
    """
    turns = [Turn(work) for work in works]
    waiting = deque(turns)
    try:
        for turn in turns:
            turn.start()
        while waiting:
            (turn := waiting[0]).take()
            if turn.raised is not None:
                raise turn.raised
            if turn.ended:
                waiting.popleft()
            else:
                waiting.rotate(-1)
    except BaseException:
        for turn in waiting:  # first the one at work, if there is one
            turn.interrupt()
        raise
    return [turn.result for turn in turns]


class Turns(L.Callback):
    """Gives the turn of a run away after every chunk, or batch, of its training."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        device = trainer.strategy.root_device
        if device.type not in ("cpu", "cuda"):
            raise UserError(f"no runs side by side on {device.type}: on a CPU or on CUDA alone.")
        if device.type == "cuda":  # where what is given to one stream is done in order
            stream, before = torch.cuda.Stream(device), torch.cuda.current_stream(device)
            stream.wait_stream(before)
            torch.cuda.set_stream(stream)  # of this thread

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        turn = current_thread()
        assert isinstance(turn, Turn)
        turn.give()


def among_others() -> bool:
    """Whether this is one of several runs side by side."""
    return isinstance(current_thread(), Turn)
