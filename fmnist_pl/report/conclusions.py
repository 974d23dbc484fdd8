"""The study's eight conclusions, as contrasts of the figures of one seed's runs.

Each contrast is above zero where the conclusion is right; `findings` says how they are judged.
"""

from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
from scipy import stats

from fmnist_pl.report.arms import ARMS, NETS, published
from fmnist_pl.report.evidence import Contrast, Figures
from fmnist_pl.report.findings import Conclusion


def published_figures(arm: str) -> Figures:
    """The study's single run. It printed no confusions, which are NaN, and no predictions."""
    run = published()[arm]
    columns: dict[str, Any] = {
        name: [epoch[name] for epoch in run["epochs"]] for name in run["epochs"][0]
    }
    columns["seconds"] = sum(columns["seconds"])
    classes = len(run["test_acc_per_class"])
    return Figures(
        test_acc=run["test_acc"],
        class_acc=run["test_acc_per_class"],
        confusion=np.full((classes, classes), nan),
        right=np.empty(0, bool),
        **columns,
    )


def better(first: str, second: str) -> Contrast:
    """Test accuracy of one arm above that of another."""
    return Contrast(
        f"{first} is more accurate than {second}",
        (first, second),
        lambda a, b: a.test_acc - b.test_acc,
        mcnemar=True,
    )


def larger_gain(name: str, after: str, before: str) -> Contrast:
    """Test accuracy gained from mlp to cnn above that gained from `before` to `after`."""
    return Contrast(
        f"convolution gains more than {name}",
        ("cnn", "mlp", after, before),
        lambda cnn, mlp, a, b: (cnn.test_acc - mlp.test_acc) - (a.test_acc - b.test_acc),
    )


def train_below_val(run: Figures) -> float:
    """Validation minus training accuracy, mean over the epochs after the first.

    The first is left out because its training accuracy is that of a net still untrained.
    """
    return float(np.mean(run.val_acc[1:]) - np.mean(run.train_acc[1:]))


def smallest_class_lead(run: Figures) -> float:
    """Lowest accuracy of the other classes minus that of the last, Accessories."""
    return min(run.class_acc[:-1]) - run.class_acc[-1]


def named_confusions_lead(*runs: Figures) -> float:
    """Share of test images by which the rarer of the two named confusions exceeds all others.

    A confusion is a pair of classes taken for one another, in either direction; mean over runs.
    """
    shares = np.mean([run.confusion / run.confusion.sum() for run in runs], axis=0)
    pairs = np.triu(shares + shares.T, k=1)
    named = [(0, 6), (2, 4)]  # T-shirt/top and Shirt, Pullover and Coat
    rarer = min(pairs[pair] for pair in named)
    for pair in named:
        pairs[pair] = 0
    return float(rarer - pairs.max())


def slope(values: Sequence[float]) -> float:
    """Relative change an epoch over the second half of the epochs, by a line through the logs."""
    half = np.log(values[len(values) // 2 :])
    return float(stats.linregress(np.arange(len(half)), half).slope)


def overfits(arm: str) -> Contrast:
    """Validation loss rises while training loss falls, by the smaller of the two."""
    return Contrast(
        f"{arm} overfits",
        (arm,),
        lambda run: min(slope(run.val_loss), -slope(run.train_loss)),
        unit="% an epoch",
        epochs=4,
        of_weights=False,
    )


def gap_growth(run: Figures) -> float:
    """Relative growth an epoch of validation loss over training loss, over the second half."""
    return slope(run.val_loss) - slope(run.train_loss)


CONCLUSIONS = (
    Conclusion(
        "Augmentation hurts the baseline.",
        "The test accuracy of the MLP without augmentation (vanilla) is above that of the same MLP "
        "with it (mlp).",
        (better("vanilla", "mlp"),),
    ),
    Conclusion(
        "Convolution gives the largest gain.",
        "cnn is more accurate than mlp, and that gain exceeds the gain of every other step from "
        "one of the six models to the next.",
        (
            better("cnn", "mlp"),
            larger_gain("batch norm", "cnn_bn", "cnn"),
            larger_gain("dropout", "cnn_bn_dropout", "cnn_bn"),
            larger_gain("L2", "cnn_bn_dropout_l2", "cnn_bn_dropout"),
            larger_gain("L1", "cnn_bn_dropout_l1", "cnn_bn_dropout"),
        ),
    ),
    Conclusion(
        "Batch norm without further regularisation is the best model.",
        "The test accuracy of cnn_bn is above that of each of the other five models.",
        tuple(better("cnn_bn", net) for net in NETS if net != "cnn_bn"),
    ),
    Conclusion(
        "Training accuracy below validation accuracy comes from online augmentation.",
        "On average over all epochs but the first, training accuracy is below validation accuracy "
        "with augmentation (mlp), not without it (vanilla), and the two differ.",
        (
            Contrast(
                "augmentation lowers training against validation accuracy",
                ("mlp", "vanilla"),
                lambda mlp, vanilla: train_below_val(mlp) - train_below_val(vanilla),
                epochs=2,
                of_weights=False,
            ),
            Contrast(
                "with augmentation, training is below validation accuracy",
                ("mlp",),
                train_below_val,
                epochs=2,
                of_weights=False,
            ),
            Contrast(
                "without augmentation, training is above validation accuracy",
                ("vanilla",),
                lambda run: -train_below_val(run),
                epochs=2,
                of_weights=False,
            ),
        ),
    ),
    Conclusion(
        "Dropout, L2 and L1 lower accuracy relative to cnn_bn.",
        "The test accuracy of cnn_bn is above that of each of its three regularised variants "
        "(those with L2 and L1 have dropout, too).",
        tuple(better("cnn_bn", net) for net in NETS if net.startswith("cnn_bn_")),
    ),
    Conclusion(
        "Three classes are easier, and the small class (Accessories) has the lowest accuracy.",
        "The same MLP is right on more test images with three classes than with ten, and of the "
        "three, Accessories has the lowest test accuracy.",
        (
            better("three_class", "vanilla"),
            Contrast(
                "Accessories is the class of lowest accuracy", ("three_class",), smallest_class_lead
            ),
        ),
    ),
    Conclusion(
        "T-shirt/Shirt and Pullover/Coat are the main confusions.",
        "Of the 45 pairs of classes, these two are the ones most often taken for one another (in "
        "either direction, on the test images, mean over the models with ten classes).",
        (
            Contrast(
                "the rarer of the two named confusions exceeds every other",
                tuple(arm for arm in ARMS if arm != "three_class"),
                named_confusions_lead,
                every=False,
            ),
        ),
    ),
    Conclusion(
        "Both unaugmented runs overfit; three_class more.",
        "In the second half of the epochs the validation loss rises while the training loss falls, "
        "and the ratio of the two grows faster for three_class than for vanilla. (A growing ratio "
        "alone does no harm: validation may still improve.)",
        (
            overfits("vanilla"),
            overfits("three_class"),
            Contrast(
                "the gap of three_class grows faster than that of vanilla",
                ("three_class", "vanilla"),
                lambda three, ten: gap_growth(three) - gap_growth(ten),
                unit="% an epoch",
                epochs=4,
                of_weights=False,
            ),
        ),
    ),
)
