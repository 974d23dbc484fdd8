"""What the study's protocol fixes of the data, and what it allows: classes, groupings, shares."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Data

TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000  # of the data set
EVAL_BATCH_SIZE = 250  # larger activations are mapped and unmapped at every layer
SIDE = 28  # of an image, pixels

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def check_classes(classes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The grouping, with the original ten classes in place of an empty one.

    Args:
        classes: name of a new class to the original labels it takes, each label 0 to 9 once.

    Raises:
        UserError: a label missing, listed twice or out of range; an empty or a single class.
    """
    if not classes:
        return {name: [label] for label, name in enumerate(CLASS_NAMES)}
    count = Counter(label for labels in classes.values() for label in labels)
    legal = f"each label 0 to {len(CLASS_NAMES) - 1} belongs to exactly one class."
    if len(classes) == 1:
        raise UserError(f"classes: only {next(iter(classes))!r} is given; at least two are needed.")
    for name, labels in classes.items():
        if not labels:
            raise UserError(f"classes: {name!r} has no labels; {legal}")
    for label in sorted(count):
        if not 0 <= label < len(CLASS_NAMES):
            raise UserError(f"classes: label {label} does not exist; {legal}")
        if count[label] > 1:
            raise UserError(f"classes: label {label} is listed {count[label]} times; {legal}")
    for label, name in enumerate(CLASS_NAMES):
        if label not in count:
            raise UserError(f"classes: label {label} ({name}) is missing; {legal}")
    return {name: list(labels) for name, labels in classes.items()}


def check_shares(data: Data, devices: int) -> None:
    """Refuse batches that cannot be shared out equally, the last, short one among them."""
    for size in (data.batch_size, (TRAIN_IMAGES - data.val_size) % data.batch_size):
        if size % devices:
            raise UserError(
                f"data.batch_size={data.batch_size}: {devices} devices cannot have equal shares "
                f"of a batch of {size} images."
            )
