"""`python -m fmnist_pl.train`: one run, or with `-m` a sweep of runs.

Heavy imports wait until there is work, so that `--help` and a mistake answer at once.
"""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict

from fmnist_pl.cli import fail
from fmnist_pl.config import CONF_DIR, UserError, resolve

if TYPE_CHECKING:
    from fmnist_pl.run import Result


class Guard(Callback):
    """Refuses an impossible configuration before Hydra makes a folder for it."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        options = copy.deepcopy(config)
        with open_dict(options):
            del options["hydra"]
        try:
            resolve(options)
        except UserError as error:
            fail(error)


@hydra.main(version_base="1.3", config_path=CONF_DIR, config_name="train")
def main(options: DictConfig) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        config = resolve(options)

        from fmnist_pl.run import run

        report(run(config, folder), folder)
    except UserError as error:
        fail(error)


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
    print(f"TensorBoard  tensorboard --logdir {folder}")


if __name__ == "__main__":
    main()
