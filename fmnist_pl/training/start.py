"""What a new run may begin with: the weights of a checkpoint, or the epochs of another run."""

from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_pl.config import differing, flat, identity
from fmnist_pl.files import BEST, CONFIG, LAST
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import TOTAL, Config

if TYPE_CHECKING:
    from fmnist_pl.model.classifier import Classifier

# What may be otherwise in a run that goes on with the epochs of another.
FREE = {"name", "embeddings", "init_from", "trainer.max_epochs", "trainer.min_epochs"}
FREE |= {"test.checkpoint", "trainer.limit_test_batches", "threads", "compile"}


def check_start(config: Config, folder: Path) -> None:
    """Refuse to start a run in a folder from what is not there, or is of another kind.

    Raises:
        UserError: both are given; no such checkpoint; a run of other options, or with no fewer
            epochs, or whose learning rate depends on how many they are.
    """
    if config.init_from and config.continue_from:
        raise UserError("init_from and continue_from: a run begins with one of them.")
    if (folder / LAST).exists():
        return  # it has started
    if config.init_from and not Path(config.init_from).is_file():
        raise UserError(
            f"init_from={config.init_from}: no such file. A run's checkpoints are in its folder: "
            f"{LAST} and {BEST}."
        )
    if not config.continue_from:
        return
    given = f"continue_from={config.continue_from}"
    for path in (Path(config.continue_from, name) for name in (CONFIG, LAST)):
        if not path.is_file():
            raise UserError(f"{given}: no folder of a run; it lacks {path.name}.")
    from fmnist_pl.report.runs import read_config

    try:
        old = read_config(Path(config.continue_from, CONFIG))
    except Exception as error:  # a damaged file: YAML's errors, or a value of another version
        raise UserError(f"{given}: {CONFIG}: {str(error).splitlines()[0]}") from None
    if other := set(differing(*(flat(identity(each)) for each in (old, config)))) - FREE:
        raise UserError(f"{given}: a run of other options ({', '.join(sorted(other))}).")
    if old.trainer.max_epochs >= config.trainer.max_epochs:
        raise UserError(
            f"{given}: has {old.trainer.max_epochs} epochs; "
            f"trainer.max_epochs={config.trainer.max_epochs} must be more."
        )
    if TOTAL in config.schedule.values():
        raise UserError(
            f"{given}: its learning rate follows a schedule over as many epochs as it had. "
            "init_from begins with its weights alone."
        )


def take_weights(classifier: "Classifier", source: "Classifier") -> str:
    """Give a classifier the weights of another; of one of other classes, all but the head.

    Returns:
        What it has now, in words.

    Raises:
        UserError: another net.
    """
    own, given = classifier.net.state_dict(), source.net.state_dict()
    same_classes = source.hparams["classes"] == classifier.hparams["classes"]
    if not same_classes:
        heads = [name for name in own if name.startswith("head.")]
        given = {**given, **{name: own[name] for name in heads}}
    here, there = ({name: tuple(one.shape) for name, one in each.items()} for each in (own, given))
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            raise UserError(
                f"init_from: {source.options.name} is another net than {classifier.options.name}: "
                f"{name} is {there.get(name)} there and {here.get(name)} here."
            )
    classifier.net.load_state_dict(given)
    head = "" if same_classes else f"; a new head for {', '.join(classifier.class_names)}"
    return f"the weights of {source.options.name}-{source.seed}{head}"
