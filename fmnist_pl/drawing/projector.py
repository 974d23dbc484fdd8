"""Embeddings as TensorBoard's projector shows them, and where a t-SNE puts them.

The t-SNE is openTSNE's: on one thread it places 10,000 embeddings several times faster than
scikit-learn's, with the same accuracy of nearest neighbours. Where it cannot be installed, as on
Linux on ARM, it is scikit-learn's.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmnist_pl.files import write_atomically
from fmnist_pl.options.messages import UserError, progress_bar

if TYPE_CHECKING:
    from PIL import Image
    from tensorboard.plugins.projector import EmbeddingInfo

FOLDER = "embeddings"
SPLITS = {"test": ("test",), "all": ("test", "train")}  # by the option `embeddings`
NEIGHBOURS = 10
EXAGGERATED, PLAIN = 100, 150  # t-SNE's iterations; more cost much and separate no better


class Embedded(NamedTuple):
    """N images and what a classifier makes of them."""

    images: NDArray[np.uint8]  # (N, 28, 28)
    labels: NDArray[np.int64]  # (N,)
    embeddings: NDArray[np.float32]  # (N, D)
    predictions: NDArray[np.int64]  # (N,)


def write(
    folder: Path,
    splits: Mapping[str, Embedded],
    class_names: Sequence[str],
    prefix: str = "",
) -> dict[str, float]:
    """Add embeddings to a folder of TensorBoard's.

    What is there under other names stays. For the test images a t-SNE is added, and
    `embeddings/test.npz` is written: `embeddings`, float32 (N, D), `tsne`, float32 (N, 2),
    `labels` and `predictions`, int64 (N,).

    Args:
        folder: the run's.
        splits: name to images; `test` among them.
        class_names: C names.
        prefix: opens the names of embeddings and files.

    Returns:
        The `knn_accuracy` of the test images by `embedding` and by `tsne`.

    Raises:
        UserError: embeddings that are not finite; a `projector_config.pbtxt` that is none.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    accuracies, added = {}, []
    for split, (images, labels, embeddings, predictions) in splits.items():
        name = f"{prefix}{split}"
        if not np.isfinite(embeddings).all():
            raise UserError(f"{name}: the embeddings are not finite numbers; training diverged.")
        spaces = {name: embeddings}
        if split == "test":
            plane = spaces[f"{name}-tsne"] = tsne(embeddings)
            accuracies = {
                "embedding": knn_accuracy(embeddings, labels),
                "tsne": knn_accuracy(plane, labels),
            }
            arrays = io.BytesIO()
            np.savez_compressed(
                arrays, embeddings=embeddings, tsne=plane, labels=labels, predictions=predictions
            )
            write_atomically(folder / FOLDER / f"{name}.npz", arrays.getvalue())
        table = metadata(class_names, labels, predictions)
        added += store_embeddings(folder, name, spaces, table, images)
    register(folder, added)
    return accuracies


def tsne(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points (N, D) laid out in a plane, (N, 2), always in the same way.

    L. van der Maaten and G. Hinton, "Visualizing Data using t-SNE", JMLR 2008.
    """
    if find_spec("openTSNE") is None:
        return slow_tsne(embeddings)
    from openTSNE import TSNE

    # What does not extend in two directions has no principal components to start from.
    flat = np.linalg.matrix_rank(embeddings) < 2
    with progress_bar(total=EXAGGERATED + PLAIN, desc="t-SNE", delay=1, leave=False) as bar:

        def advance(iteration: int, error: float, points: NDArray[Any]) -> None:
            bar.update(10)

        points = TSNE(
            perplexity=perplexity(len(embeddings)),
            early_exaggeration_iter=EXAGGERATED,
            n_iter=PLAIN,
            initialization="random" if flat else "pca",
            neighbors="exact",
            random_state=0,
            callbacks=advance,
            callbacks_every_iters=10,
        ).fit(embeddings)
    return np.asarray(points, np.float32)


def slow_tsne(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same by scikit-learn, in a layout of its own."""
    from sklearn.manifold import TSNE

    print("t-SNE by scikit-learn, which takes a minute: openTSNE, the faster, is not installed")
    exaggerated = 250  # always
    points = TSNE(
        perplexity=perplexity(len(embeddings)), random_state=0, max_iter=exaggerated + PLAIN
    ).fit_transform(embeddings)
    return np.asarray(points, np.float32)


def perplexity(count: int) -> float:
    """How many neighbours t-SNE reckons with: its usual number, or of so few points a third."""
    return min(30, (count - 1) / 3)


def knn_accuracy(points: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of points (N, D) whose nearest others have, in majority, the label of their own.

    Of labels with equally many votes the lowest counts, as in scikit-learn's classifier.
    """
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(points) - 1)).fit(points)
    neighbours = index.kneighbors(return_distance=False)  # (N, 10), none its own neighbour
    votes = np.eye(labels.max() + 1)[labels[neighbours]].sum(1)  # (N, C)
    return float((votes.argmax(1) == labels).mean())


def metadata(
    class_names: Sequence[str], labels: NDArray[np.int64], predictions: NDArray[np.int64]
) -> str:
    """A table of tab-separated values, one line an image under a line of titles."""
    names = [" ".join(name.split()) for name in class_names]  # no tabs, no line ends
    rows = (
        f"{label}\t{names[label]}\t{names[prediction]}\n"
        for label, prediction in zip(labels, predictions, strict=True)
    )
    return "Class\tName\tPrediction\n" + "".join(rows)


def sprite(images: NDArray[np.uint8]) -> "Image.Image":
    """Images (N, 28, 28), inverted, in rows of the smallest square that holds them.

    The projector multiplies them by the colour of a class, which then is their ground. 60,000 make
    6,860 pixels a side; TensorBoard takes up to 8,192.
    """
    from PIL import Image

    count, height, width = images.shape
    side = int(np.ceil(np.sqrt(count)))
    tiles = np.full((side * side, height, width), 255, np.uint8)
    tiles[:count] -= images
    grid = tiles.reshape(side, side, height, width).swapaxes(1, 2)
    return Image.fromarray(grid.reshape(side * height, side * width))


def store_embeddings(
    folder: Path,
    name: str,
    spaces: Mapping[str, NDArray[np.float32]],
    table: str,
    images: NDArray[np.uint8],
) -> list["EmbeddingInfo"]:
    """Write the files of N images; the entries of TensorBoard's configuration.

    Args:
        folder: TensorBoard's.
        name: of the files that all spaces share.
        spaces: name of an embedding to its points (N, D).
        table: of `metadata`.
        images: (N, 28, 28).
    """
    from tensorboard.plugins.projector import EmbeddingInfo, SpriteMetadata

    png = io.BytesIO()
    sprite(images).save(png, "PNG", compress_level=1)
    write_atomically(folder / FOLDER / f"{name}.png", png.getvalue())
    write_atomically(folder / FOLDER / f"{name}.tsv", table.encode())
    _, height, width = images.shape
    thumbnails = SpriteMetadata(image_path=f"{FOLDER}/{name}.png", single_image_dim=[width, height])
    entries = []
    for space, points in spaces.items():
        # A plane gets a third coordinate, which the projector's page shows nothing without. And
        # TensorBoard takes for text what is valid UTF-8, as the bytes of 0.0 are, not of -0.0.
        tensor = np.pad(points, [(0, 0), (0, max(0, 3 - points.shape[1]))])
        tensor[tensor == 0] = -0.0
        write_atomically(folder / FOLDER / f"{space}.bytes", tensor.tobytes())
        entries.append(
            EmbeddingInfo(
                tensor_name=space,
                tensor_path=f"{FOLDER}/{space}.bytes",
                tensor_shape=tensor.shape,
                metadata_path=f"{FOLDER}/{name}.tsv",
                sprite=thumbnails,
            )
        )
    return entries


def register(folder: Path, added: Iterable["EmbeddingInfo"]) -> None:
    """Put embeddings into TensorBoard's configuration, each in place of one of the same name."""
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from tensorboard.plugins.projector import ProjectorConfig
    from tensorboard.plugins.projector.metadata import PROJECTOR_FILENAME

    path, config = folder / PROJECTOR_FILENAME, ProjectorConfig()
    if path.exists():
        try:
            text_format.Parse(path.read_text(encoding="utf-8"), config)
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}: no configuration of TensorBoard's projector ({error}). Delete it."
            ) from None
    entries = {entry.tensor_name: entry for entry in (*config.embeddings, *added)}
    config.ClearField("embeddings")
    config.embeddings.extend(entries.values())
    write_atomically(path, text_format.MessageToString(config))
