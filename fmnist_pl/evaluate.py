"""The figures and pictures of a checkpoint, wherever it was copied to.

    python -m fmnist_pl.evaluate checkpoint=runs/cnn_bn-0/checkpoints/last.ckpt
    python -m fmnist_pl.evaluate checkpoint=last.ckpt split=val folder=pictures

For the test images of the data set these are the figures of the run that made the checkpoint. With
split=train the images are seen as they are, not augmented, and by the finished weights.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fmnist_pl.files import write_atomically
from fmnist_pl.options.command import DataOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError, printable


@dataclass
class Options:
    checkpoint: str = option(help="Checkpoint of a run.")
    split: str = option("test", "Images to evaluate on.", choices=("train", "val", "test"))
    folder: str | None = option(
        None, "Where evaluation.json and the pictures go; if not given, beside the checkpoint."
    )
    data: DataOptions = field(default_factory=DataOptions)


def work(options: Options) -> None:
    """Print the figures; write them and the pictures into the folder."""
    from fmnist_pl.drawing import gallery
    from fmnist_pl.model.inference import evaluate, load_classifier, load_split, predict

    classifier = load_classifier(options.checkpoint)
    images, labels = load_split(classifier, options.split, options.data.root)
    predictions = predict(classifier, images)
    result = evaluate(classifier, predictions, labels, options.split)
    report(result)

    checkpoint = Path(options.checkpoint)
    folder = Path(options.folder or checkpoint.with_name(f"{checkpoint.stem}-{options.split}"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"checkpoint": options.checkpoint, **result}, indent=1)
        write_atomically(folder / "evaluation.json", content + "\n")
        drawn = gallery.draw(
            result, options.split, images.numpy(), labels.numpy(), predictions.probabilities
        )
        gallery.save(drawn, folder)
    except OSError as error:
        raise UserError(f"folder={folder} cannot be written: {error.strerror}.") from None
    print(f"\nfigures and pictures  {folder}")


def report(result: dict[str, Any]) -> None:
    """The figures at the terminal, and for each class what it is most often taken for."""
    split, names = result["split"], [printable(name) for name in result["classes"]]
    print(f"{printable(result['model'])}-{result['seed']}, {result['parameters']:,} parameters\n")
    print(f"{result['images']:,} {split} images")
    for name in ("acc", "loss", "cross_entropy", "penalty"):
        label = name.replace("_", "-").replace("acc", "accuracy")
        print(f"  {label:13}  {result[f'{split}/{name}']:.4f}")
    column = max(map(len, ["class", *names]))
    print(f"\n{'class':{column}}  accuracy  images  most often taken for")
    confusion = np.array(result[f"{split}/confusion_matrix"])
    accuracies = result[f"{split}/acc_per_class"].values()
    for i, (name, accuracy) in enumerate(zip(names, accuracies, strict=True)):
        wrong = np.where(np.arange(len(names)) == i, 0, confusion[i])
        taken_for = f"{names[wrong.argmax()]} ({wrong.max():,})" if wrong.any() else ""
        print(f"{name:{column}}  {accuracy:8.4f}  {confusion[i].sum():6}  {taken_for}".rstrip())


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
