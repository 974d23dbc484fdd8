"""Embeddings of images, for TensorBoard's projector.

    python -m fmnist_pl.projector checkpoint=runs/cnn_bn-0/checkpoints/last.ckpt embeddings=all
    tensorboard --logdir runs/cnn_bn-0

A run writes its own, named `test`, `test-tsne` and `train`; this command adds those of any
checkpoint, under names that open with the checkpoint's, as in `best-test`.
"""

from dataclasses import dataclass
from pathlib import Path

from fmnist_pl.drawing import projector
from fmnist_pl.files import CHECKPOINTS
from fmnist_pl.options.command import CheckpointOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError


@dataclass
class Options(CheckpointOptions):
    embeddings: str = option(
        "test", "Images to embed; all: training images, too.", choices=tuple(projector.SPLITS)
    )
    folder: str | None = option(
        None, "TensorBoard's; if not given, the run's, or for a checkpoint elsewhere, its own."
    )


def work(options: Options) -> None:
    """Embed, write, print how well the classes separate."""
    from fmnist_pl.model.inference import embed, load_classifier, load_split

    classifier = load_classifier(options.checkpoint, options.trust_code)
    splits = {
        split: embed(classifier, *load_split(classifier, split, options.data.root))
        for split in projector.SPLITS[options.embeddings]
    }
    checkpoint = Path(options.checkpoint).absolute()
    beside = checkpoint.parent
    folder = Path(options.folder or (beside.parent if beside.name == CHECKPOINTS else beside))
    try:
        names = classifier.class_names
        accuracies = projector.write(folder, splits, names, prefix=f"{checkpoint.stem}-")
    except OSError as error:
        raise UserError(f"folder={folder} cannot be written: {error.strerror}.") from None
    for split, embedded in splits.items():
        print(f"{checkpoint.stem}-{split}: {len(embedded.images):,} images")
    print(f"test images that their {projector.NEIGHBOURS} nearest neighbours classify right")
    print(f"  by embedding  {accuracies['embedding']:.4f}")
    print(f"  by t-SNE      {accuracies['tsne']:.4f}")
    print(f"\nTensorBoard  tensorboard --logdir {folder}")


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
