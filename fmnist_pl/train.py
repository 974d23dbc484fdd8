"""`python -m fmnist_pl.train`: one run, or with `-m` a sweep of runs.

Heavy imports wait until there is work, so that `--help` and a mistake answer at once.
"""

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import to_absolute_path
from omegaconf import DictConfig

from fmnist_pl.config import resolve
from fmnist_pl.options.command import CONF_DIR, hydra_help
from fmnist_pl.options.messages import (
    UnfinishedError,
    UserError,
    fail,
    prepare_terminal,
    stop_printing,
    tell,
    tensorboard,
)
from fmnist_pl.options.refusals import refusal, unknown_flag
from fmnist_pl.sweep.attempt import attempt
from fmnist_pl.sweep.plan import Guard
from fmnist_pl.sweep.watch import Watch

if TYPE_CHECKING:
    from fmnist_pl.training.trained import Result


@hydra.main(version_base="1.3", config_path=CONF_DIR, config_name="train")
def run_or_sweep(options: DictConfig) -> None:
    """One run, or one of a sweep: what Hydra calls with the composed configuration."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    # Paths are seen from where the command was typed, also with hydra.job.chdir=true.
    for holder, name in (
        (options.data, "root"),
        (options, "init_from"),
        (options, "continue_from"),
    ):
        if holder[name] and not holder[name].startswith("~"):
            holder[name] = to_absolute_path(holder[name])
    try:
        if hydra_config.mode == RunMode.MULTIRUN:
            attempt(options, folder)
        else:
            from fmnist_pl.training.folder import run

            try:
                result = run(resolve(options), folder)
            except BrokenPipeError:
                stop_printing()
                raise KeyboardInterrupt(f"with hydra.run.dir={folder}") from None
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"with hydra.run.dir={folder}") from None
            except UnfinishedError as error:
                fail(f"{error} The same command goes on with hydra.run.dir={folder}")
            if result:
                report(result, folder)
    except UserError as error:
        fail(error)


def main() -> None:
    """The command. However a sweep ends, it ends in its report."""
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in the background
        signal.signal(signal.SIGINT, interrupt)
    if "hydra/launcher=slurm" in sys.argv:
        if not hasattr(signal, "SIGUSR2"):  # by which SLURM warns of its time limit
            fail("hydra/launcher=slurm: not on this system, which SLURM does not run on.")
        if not find_spec("submitit"):
            fail("hydra/launcher=slurm needs a plugin of Hydra's: pip install 'fmnist_pl[slurm]'")
    Guard.only_lists = takes_out_cfg(sys.argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors over, to be told here
    prepare_terminal()
    if wrong := unknown_flag(sys.argv[1:]):
        fail(wrong)
    code: Any = None
    try:
        if {"-h", "--help"} & set(sys.argv):
            print(hydra_help("train", sys.argv), flush=True)
        else:
            run_or_sweep()
    except KeyboardInterrupt as stop:
        how = str(stop) or "with the same folder"
        print(f"\ninterrupted: the same command goes on {how}", file=sys.stderr)
        code = 130  # the shell's number for Ctrl-C
    except SystemExit as stop:
        code = stop.code
    except BrokenPipeError:
        stop_printing()
        code = 1
    except Exception as error:
        # The errors of a sweep's runs are kept with the runs: this one is the launcher's.
        said = error if Watch.of_this_process else refusal(error)
        if said is None:
            raise
        tell(said)
        code = 1
    watch = Watch.of_this_process
    if watch and not watch.conclude():
        code = code or 1
    sys.exit(code)


def takes_out_cfg(words: list[str]) -> bool:
    """Whether `--cfg job` stands beside `-m`, which Hydra refuses: it is taken out."""
    if not {"-m", "--multirun"} & set(words):
        return False
    for i, word in enumerate(words[1:], 1):  # the program's own name may be -c
        if word in ("--cfg", "-c") or word.startswith("--cfg="):
            del words[i : i + 1 + ("=" not in word)]
            return True
    return False


def interrupt(*_: Any) -> None:
    """Stop once: a second signal must not keep a launcher from ending its workers."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def report(result: "Result", folder: Path) -> None:
    """The result at the terminal, and what to type next."""
    print(f"\n{result['name']}-{result['seed']}, {result['parameters']:,} parameters")
    print(f"{'':12}{'accuracy':>10}{'loss':>10}{'cross-entropy':>15}{'penalty':>10}")
    for split, label in (("train", "training"), ("val", "validation"), ("test", "test")):
        acc, *losses = (
            result[f"{split}/{name}"] for name in ("acc", "loss", "cross_entropy", "penalty")
        )
        print(f"{label:12}{acc:10.4f}{losses[0]:10.4f}{losses[1]:15.4f}{losses[2]:10.4f}")
    print(f"\nrun folder   {folder}")
    print(f"TensorBoard  {tensorboard(folder)}")


if __name__ == "__main__":
    main()
