"""One source of chance varies and the others stay: against what each draws from a seed alone."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fmnist_pl.data import augment
from fmnist_pl.data.augment import parse_ops
from fmnist_pl.data.datamodule import derive_seed
from fmnist_pl.model import nets
from fmnist_pl.options.messages import PausedError, UserError
from fmnist_pl.options.schema import Config
from fmnist_pl.training.fit import build_classifier, build_datamodule
from fmnist_pl.training.folder import run
from tests.training.test_folder import TINY, metrics, weights

Configured = Callable[..., Config]
SOURCES = ("init", "order", "augment", "dropout")
COUNT = 200
PICTURE = torch.arange(28 * 28).remainder(256).to(torch.uint8).view(28, 28)
NET = "model=cnn_bn_dropout"


def weights_of(net: nn.Module) -> Tensor:
    return torch.cat([each.detach().flatten() for each in net.parameters()])


def by_hand(config: Config, source: str, seed: int) -> Tensor:
    """What a source decides of a run whose only seed is `seed`."""
    if source == "init":
        torch.manual_seed(derive_seed(seed))
        return weights_of(nets.build_net(config.model, 10))
    if source == "dropout":
        torch.manual_seed(derive_seed(seed, 0, 0))
        return nn.functional.dropout(torch.ones(COUNT), config.model.dropout)
    generator = torch.Generator().manual_seed(derive_seed(seed, 0))
    order = torch.randperm(COUNT, generator=generator)
    if source == "order":
        return order
    images = PICTURE.expand(COUNT, 1, 28, 28) / 255
    return augment.augment(images, parse_ops(config.augment.ops), generator)


def of_a_run(config: Config) -> dict[str, Tensor]:
    """By source what it decides of a run: all its images are alike, but for their labels."""
    datamodule, classifier = build_datamodule(config), build_classifier(config)
    datamodule.splits = {"train": (PICTURE.expand(COUNT, 28, 28), torch.arange(COUNT))}
    batches = chain.from_iterable(datamodule.train_dataloader())
    images, order = map(torch.cat, zip(*batches, strict=True))
    initial = weights_of(classifier.net)
    classifier.on_train_epoch_start()
    dropped = nn.functional.dropout(torch.ones(COUNT), config.model.dropout)
    return {"init": initial, "order": order, "augment": images, "dropout": dropped}


@pytest.mark.parametrize(
    ("words", "vary"),
    [
        (("seed=0",), ()),
        (("seed=3",), SOURCES),
        *(((f"seeds.{source}=3",), (source,)) for source in SOURCES),
        *(((f"seeds={source}", "seed=3"), (source,)) for source in SOURCES),
        (("seeds=all", "seed=3"), SOURCES),
        (("seeds=none", "seed=3"), ()),
        (("seeds.order=3", "seeds.augment=3"), ("order", "augment")),
    ],
)
def test_what_varies_is_as_from_its_seed_and_all_else_as_before(
    words: tuple[str, ...], vary: tuple[str, ...], configured: Configured
) -> None:
    config = configured(NET, *words)
    found = of_a_run(config)
    for source in SOURCES:
        seed = 3 if source in vary else 0
        assert torch.equal(found[source], by_hand(config, source, seed)), source
        assert not torch.equal(found[source], by_hand(config, source, 3 - seed)), source


OWN = ("seed=5", "seeds.init=1", "seeds.order=2", "seeds.augment=3", "seeds.dropout=4")
SHORT = (*TINY, NET, "trainer.limit_train_batches=8", *OWN)


@pytest.mark.parametrize("way", ["in chunks", "callbacks=[lr_monitor]"])
def test_a_run_with_seeds_of_its_own_goes_on_with_them(
    way: str, tmp_path: Path, configured: Configured
) -> None:
    words = (*SHORT, *([way] if "=" in way else []))
    run(configured(*words), tmp_path / "undisturbed")
    with pytest.raises(PausedError):
        run(configured(*words, "pause_after=1"), tmp_path / "stopped")
    with pytest.raises(UserError, match=r"a different configuration \(seeds.dropout\)"):
        run(configured(*words, "seeds.dropout=5"), tmp_path / "stopped")
    run(configured(*words), tmp_path / "stopped")
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "undisturbed")
    for name, tensor in weights(tmp_path / "undisturbed").items():
        assert torch.equal(tensor, weights(tmp_path / "stopped")[name]), name


def test_a_run_from_before_there_were_such_seeds_goes_on(
    tmp_path: Path, configured: Configured
) -> None:
    words = (*TINY, "model=mlp", "seed=5")
    run(configured(*words), tmp_path / "undisturbed")
    with pytest.raises(PausedError):
        run(configured(*words, "pause_after=1"), tmp_path / "old")
    last = tmp_path / "old" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    del content["hyper_parameters"]["seeds"]
    torch.save(content, last)
    options = tmp_path / "old" / "config.yaml"
    before, _, after = options.read_text().partition("seeds:\n")
    options.write_text(before + after.split("null\n", 4)[4])
    assert "seeds" not in options.read_text()
    run(configured(*words), tmp_path / "old")
    assert metrics(tmp_path / "old") == metrics(tmp_path / "undisturbed")
