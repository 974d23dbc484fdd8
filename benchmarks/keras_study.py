"""The study's protocol in Keras, on the CPU: what `six_models.py` measures `fmnist_pl` against.

    python benchmarks/keras_study.py tuned|plain DATA LOGS CONFIGS

It runs in an environment of its own, `pip install tensorflow-cpu tensorboard scipy`, without
`fmnist_pl`. DATA is a folder with the four plain idx files, LOGS one for TensorBoard; CONFIGS is a
JSON list of runs as `fmnist_pl.options.schema.Config` has them, which are trained, validated after
every epoch and tested one after the other. It prints one JSON object: the seconds of all of them,
imports left out, each one's test accuracy, and versions.

`plain` is Keras as the study used it: an ImageDataGenerator, which augments image by image, and
Keras' defaults for all else. `tuned` is written for speed as far as Keras goes without leaving its
ways: shuffled indices instead of shuffled images, augmentation of whole batches with a draw for
each image, all cores fetching ahead, many steps a call, evaluation in large batches. Compiling with
XLA was slower on CPUs.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SIDE = 28
EVAL_BATCH_SIZE, KERAS_BATCH_SIZE = 250, 32  # the latter is Keras' default
STEPS_PER_CALL = 32

Options = dict[str, Any]
Images = Any  # tensor of float32 (B, 28, 28, 1) in [0, 1]


def read(folder: Path, name: str) -> tuple[Any, Any]:
    """Images uint8 (N, 28, 28, 1) and labels int32 (N,) of the files that begin with `name`."""
    images = np.fromfile(folder / f"{name}-images-idx3-ubyte", np.uint8, offset=16)
    labels = np.fromfile(folder / f"{name}-labels-idx1-ubyte", np.uint8, offset=8)
    return images.reshape(-1, SIDE, SIDE, 1), labels.astype(np.int32)


def cutout(
    images: Images, p: float = 0.5, min_size: int = 1, max_size: int = 9, max_value: float = 0.02
) -> Images:
    """Fill a rectangle of each image with one dark value, with probability `p`."""
    count = tf.shape(images)[0]
    sizes = tf.random.uniform((count, 2), min_size, max_size + 1, tf.int32)
    free = tf.cast(SIDE + 1 - sizes, tf.float32)
    corners = tf.cast(tf.random.uniform((count, 2)) * free, tf.int32)
    hit = tf.random.uniform((count, 1, 1, 1)) < p
    values = tf.random.uniform((count, 1, 1, 1), 0, max_value)
    start, pixels = corners[:, :, None], tf.range(SIDE)
    inside = (start <= pixels) & (pixels < start + sizes[:, :, None])  # (B, 2, 28)
    box = inside[:, 0, :, None, None] & inside[:, 1, None, :, None]
    return tf.where(box & hit, values, images)


def augmentation(name: str, parameters: Options) -> Callable[[Images], Images]:
    """The operation of `augment.ops` as a function of a batch; each draws for each image."""
    match name, parameters:
        case "rotate", {"degrees": degrees}:
            rotate = keras.layers.RandomRotation(degrees / 360, fill_mode="nearest")
            return lambda images: rotate(images, training=True)
        case "flip_horizontal", {"p": 0.5}:
            flip = keras.layers.RandomFlip("horizontal")
            return lambda images: flip(images, training=True)
        case "cutout", _:
            return lambda images: cutout(images, **parameters)
    raise ValueError(f"no Keras operation for {name} {parameters}")


def tuned_batches(
    images: Any, labels: Any, batch_size: int, ops: Sequence[Options]
) -> tf.data.Dataset:
    """The images in a new order every epoch, augmented anew."""
    functions = [augmentation(name, parameters) for op in ops for name, parameters in op.items()]
    all_images, all_labels = tf.constant(images), tf.constant(labels)

    def batch(indices: Any) -> tuple[Images, Any]:
        chosen = tf.cast(tf.gather(all_images, indices), tf.float32) / 255
        for function in functions:
            chosen = function(chosen)
        return chosen, tf.gather(all_labels, indices)

    indices = tf.data.Dataset.range(len(labels)).shuffle(len(labels)).batch(batch_size)
    return indices.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def plain_batches(images: Any, labels: Any, batch_size: int, ops: Sequence[Options]) -> Any:
    """The same from the generator of the study, in Python, one image at a time."""
    settings: Options = {}
    for name, parameters in (item for op in ops for item in op.items()):
        match name, parameters:
            case "rotate", {"degrees": degrees}:
                settings["rotation_range"] = degrees
            case "flip_horizontal", {"p": 0.5}:
                settings["horizontal_flip"] = True
            case "cutout", _:
                settings["preprocessing_function"] = partial(cutout_image, **parameters)
            case _:
                raise ValueError(f"no Keras operation for {name} {parameters}")
    generator = tf.keras.preprocessing.image.ImageDataGenerator(**settings)
    return generator.flow(images.astype(np.float32) / 255, labels, batch_size)


def cutout_image(image: Any, p: float, min_size: int, max_size: int, max_value: float) -> Any:
    """`cutout` of one image, an array (28, 28, 1)."""
    if np.random.random() < p:
        height, width = np.random.randint(min_size, max_size + 1, 2)
        top, left = np.random.randint(SIDE + 1 - height), np.random.randint(SIDE + 1 - width)
        image[top : top + height, left : left + width] = np.random.uniform(0, max_value)
    return image


def eval_batches(images: Any, labels: Any, size: int) -> tf.data.Dataset:
    scaled = images.astype(np.float32) / 255
    batches = tf.data.Dataset.from_tensor_slices((scaled, labels)).batch(size)
    return batches.cache().prefetch(tf.data.AUTOTUNE)


def build_net(model: Options, classes: int) -> keras.Model:
    """The net in Keras' layers, initial weights and penalties."""
    layers = keras.layers
    penalty = None
    if model["l1"] or model["l2"]:
        penalty = keras.regularizers.L1L2(l1=model["l1"], l2=model["l2"])
    net = [keras.Input((SIDE, SIDE, 1))]
    for filters in model["channels"]:
        net.append(layers.Conv2D(filters, 3, padding="same", kernel_regularizer=penalty))
        net += [layers.BatchNormalization()] if model["batch_norm"] else []
        net += [layers.ReLU(), layers.MaxPooling2D(2)]
    net.append(layers.Flatten())
    for units in model["hidden"]:
        net.append(layers.Dense(units, activation="relu", kernel_regularizer=penalty))
        net += [layers.Dropout(model["dropout"])] if model["dropout"] else []
    return keras.Sequential([*net, layers.Dense(classes, kernel_regularizer=penalty)])


def train(config: Options, tuned: bool, data: Path, logs: Path) -> float:
    """Train with validation, then test: the accuracy."""
    keras.utils.set_random_seed(config["seed"])
    options, trainer, adam = config["data"], config["trainer"], config["optimizer"]
    images, labels = read(data, "train")
    order = np.random.RandomState(options["split_seed"]).permutation(len(labels))
    val, train = order[: options["val_size"]], order[options["val_size"] :]
    limit = trainer["limit_train_batches"]
    make_batches, eval_size = (
        (tuned_batches, EVAL_BATCH_SIZE) if tuned else (plain_batches, KERAS_BATCH_SIZE)
    )
    batches = make_batches(
        images[train], labels[train], options["batch_size"], config["augment"]["ops"]
    )
    net = build_net(config["model"], len(config["classes"]))
    net.compile(
        keras.optimizers.Adam(adam["lr"], *adam["betas"], adam["eps"]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=STEPS_PER_CALL if tuned else 1,
        jit_compile=False,
    )
    net.fit(
        batches,
        validation_data=eval_batches(images[val], labels[val], eval_size),
        epochs=trainer["max_epochs"],
        steps_per_epoch=limit if isinstance(limit, int) else None,
        callbacks=[keras.callbacks.TensorBoard(logs / config["name"], histogram_freq=1)],
        verbose=0,
    )
    figures = net.evaluate(
        eval_batches(*read(data, "t10k"), eval_size), verbose=0, return_dict=True
    )
    return float(figures["accuracy"])


def main() -> None:
    way, data, logs, configs = sys.argv[1:]
    tuned = {"tuned": True, "plain": False}[way]
    start = time.perf_counter()
    test_acc = {
        config["name"]: train(config, tuned, Path(data), Path(logs))
        for config in json.loads(configs)
    }
    seconds = time.perf_counter() - start
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    print(json.dumps({"seconds": seconds, "test_acc": test_acc, "versions": versions}))


if __name__ == "__main__":
    main()
