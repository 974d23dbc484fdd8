"""What the study's protocol makes of a data set, and what it allows: groupings, splits, shares."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import Data

EVAL_BATCH_SIZE = 250  # larger activations are mapped and unmapped at every layer
SIDE = 28  # of an image, pixels
VAL_SHARE = 6  # one of so many training images is held out, unless it is said how many are


def check_classes(
    classes: Mapping[str, Sequence[int]], class_names: Sequence[str]
) -> dict[str, list[int]]:
    """The grouping, with the original classes in place of an empty one.

    Args:
        classes: name of a new class to the original labels it takes, each label once.
        class_names: by original label.

    Raises:
        UserError: a label missing, listed twice or out of range; an empty or a single class.
    """
    if not classes:
        return {name: [label] for label, name in enumerate(class_names)}
    count = Counter(label for labels in classes.values() for label in labels)
    legal = f"each label 0 to {len(class_names) - 1} belongs to exactly one class."
    if len(classes) == 1:
        raise UserError(f"classes: only {next(iter(classes))!r} is given; at least two are needed.")
    for name, labels in classes.items():
        if not labels:
            raise UserError(f"classes: {name!r} has no labels; {legal}")
    for label in sorted(count):
        if not 0 <= label < len(class_names):
            raise UserError(f"classes: label {label} does not exist; {legal}")
        if count[label] > 1:
            raise UserError(f"classes: label {label} is listed {count[label]} times; {legal}")
    for label, name in enumerate(class_names):
        if label not in count:
            raise UserError(f"classes: label {label} ({name}) is missing; {legal}")
    return {name: list(labels) for name, labels in classes.items()}


def held_out(data: Data, images: int) -> int:
    """Of so many training images how many are for validation.

    Raises:
        UserError: none would be left to train on.
    """
    val_size = data.val_size or max(1, images // VAL_SHARE)
    if val_size >= images:
        raise UserError(
            f"data.val_size={val_size}: must be at least 1 and at most {images - 1}, for "
            f"{data.title or data.name} has {images} training images; null: a sixth of them."
        )
    return val_size


def check_shares(batch_size: int, images: int, devices: int) -> None:
    """Refuse batches that cannot be shared out equally, the last, short one among them.

    Args:
        batch_size: images a step, over all devices.
        images: to train on.
        devices: how many share them.
    """
    for size in (batch_size, images % batch_size):
        if size % devices:
            raise UserError(
                f"data.batch_size={batch_size}: {devices} devices cannot have equal shares "
                f"of a batch of {size} images."
            )
