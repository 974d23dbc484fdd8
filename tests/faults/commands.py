"""Commands in processes of their own that need no second for their imports.

Each is forked from a server that has imported torch, Lightning and the package, and then is what
`python -m` would be: signals, exit codes, streams and folders are its own.
"""

import os
import runpy
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from tempfile import mkdtemp

SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(
    ["fmnist_pl.training.folder", "fmnist_pl.data.photos", "fmnist_pl.report.summary"]
)


def execute(module: str, arguments: list[str], streams: Path, prepare: Callable[[], None]) -> None:
    os.setsid()  # as in a terminal, a process group of its own
    os.chdir(streams.parent)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(streams / name, os.O_CREAT | os.O_WRONLY), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    prepare()
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__")


def nothing() -> None: ...


class Command:
    """`python -m fmnist_pl.NAME ARGUMENTS...`, started in a folder.

    Args:
        name: of the module.
        arguments: paths among them are relative to `cwd`.
        cwd: where.
        prepare: is called in the process first; a function of a module, or a partial of one.
    """

    def __init__(
        self, name: str, *arguments: str, cwd: Path, prepare: Callable[[], None] = nothing
    ) -> None:
        self.streams = Path(mkdtemp(prefix=".streams-", dir=cwd))
        self.process = SERVER.Process(
            target=execute,
            args=(f"fmnist_pl.{name}", list(arguments), self.streams, prepare),
            daemon=True,  # ends with the tests, whatever becomes of them
        )
        self.process.start()

    @property
    def running(self) -> bool:
        return self.process.is_alive()

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid
        os.kill(self.process.pid, number)

    def wait(self, timeout: float = 600) -> int:
        """The exit code; negative, of the signal that ended it."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running after {timeout} s"
        return self.process.exitcode

    def succeeds(self) -> None:
        """Wait for it to end well, with nothing to complain of."""
        assert self.wait() == 0, self.err
        assert not self.err, self.err

    def fails_with(self, *said: str) -> None:
        """Wait for it to fail in one message, which says all this."""
        assert self.wait() == 1, self.err
        assert "Traceback" not in self.err, self.err
        assert self.err.startswith("error: "), self.err
        for words in said:
            assert words in self.err, f"{words!r} is not in {self.err!r}"

    @property
    def out(self) -> str:
        return (self.streams / "out").read_text()

    @property
    def err(self) -> str:
        return (self.streams / "err").read_text()
