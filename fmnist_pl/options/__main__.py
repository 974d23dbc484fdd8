"""The reference of all options of a run, `docs/options.md`, from the schema and from `conf/`.

python -m fmnist_pl.options > docs/options.md
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fmnist_pl.data.augment import Op
from fmnist_pl.data.transforms import Torchvision
from fmnist_pl.options.command import CONF_DIR, default_of, flatten
from fmnist_pl.options.fields import describe
from fmnist_pl.options.schema import Config

INTRODUCTION = """\
# Options

Every option of `python -m fmnist_pl.train`. This page is written from `conf/` and from the classes
that declare options by `python -m fmnist_pl.options > docs/options.md`.

An option is given as `NAME=VALUE`, as in `optimizer.lr=0.01`. A value with brackets or braces needs
quotes for the shell, as in `'model.channels=[32,64]'`. A choice, as in `model=cnn`, takes all that
a file of `conf/` says; an option given beside it has the last word. Where nothing else is chosen,
the choices are `data={data}`, `model={model}` and `augment={augment}`.

In the tables of options,

- *Default* is the value where neither the command nor a file of `conf/` gives one; `required` means
  that one of them must. `conf/train.yaml` gives `name: {name}`.
- *Legal values* of a list hold for each of its items.
- *Part of the run* is `yes` for options that decide what a run computes: a folder that holds a run
  with another value of one is refused. Those with `no` may be changed when a run is continued.
"""

FLAGS = """\
## Flags, and options of Hydra

| Name | Default | Meaning |
| --- | --- | --- |
| `-m` |  | A sweep: a run for every combination of the values, which are separated by commas. |
| `--cfg job` |  | Print the options the command would run with, or with `-m` the runs and how far \
they are. |
| `--help` |  | The choices and the options one uses most. |
| `hydra.run.dir` | `{run}` | Folder of a run. |
| `hydra.sweep.dir` | `{sweep}` | Folder of a sweep; by default it follows from what is swept. |
| `hydra.sweep.subdir` | `{subdir}` | Folder in it of each run; by default it follows from what \
varies. |
| `hydra/launcher` | `{launcher}` | What starts the runs of a sweep: `joblib`, several at once; \
`basic`, one after another; or a choice below. |
| `hydra.launcher.n_jobs` | `{n_jobs}` | Of `joblib`: how many at once; -1: as many as there are \
cores for. |
"""

OPERATIONS = """\
{}
- `torchvision`: {}
- a dotted path, as `mypackage.ops.Brightness`: [your own class](extending.md#a-new-operation).\
"""


def reference() -> str:
    """The page, in Markdown."""
    with initialize_config_dir(CONF_DIR, version_base="1.3"):
        composed = plain(compose("train", return_hydra_config=True))
    hydra, chosen = composed["hydra"], composed["hydra"]["runtime"]["choices"]
    parts = defaultdict(list)
    for name, item in flatten(Config):
        parts[name.rpartition(".")[0]].append((name, item))
    texts = {"": Config.__doc__, **{item.name: item.type.__doc__ for item in fields(Config)}}
    sections = [
        INTRODUCTION.format(**chosen, name=composed["name"]),
        FLAGS.format(
            run=hydra["run"]["dir"],
            sweep=hydra["sweep"]["dir"],
            subdir=hydra["sweep"]["subdir"],
            launcher=chosen["hydra/launcher"],
            n_jobs=hydra["launcher"]["n_jobs"],
        ),
        *choice_sections(Path(CONF_DIR)),
        *(
            option_section(f"`{part}`" if part else "The run", str(texts[part]), options)
            for part, options in parts.items()
        ),
        option_section(
            "Operations of `augment.ops`",
            OPERATIONS.format(
                "\n".join(f"- `{name}`: {op.__doc__}" for name, op in Op.known.items()),
                Torchvision.__doc__,
            ),
            (option for name, op in Op.known.items() for option in flatten(op, f"{name}.")),
        ),
    ]
    return "\n".join(sections)


def option_section(title: str, text: str, options: Iterable[tuple[str, Field[Any]]]) -> str:
    """A heading, a text and a table of options."""
    head = ("Option", "Type", "Default", "Legal values", "Meaning", "Part of the run")
    rows = (
        (
            f"`{name}`",
            type_name(item.type),
            f"`{default_of(item)}`",
            describe(**item.metadata["limits"]),
            item.metadata["help"],
            "yes" if item.metadata["identity"] else "no",
        )
        for name, item in options
    )
    return f"## {title}\n\n{text}\n\n{table(head, rows)}"


def choice_sections(conf: Path) -> Iterator[str]:
    """For each folder of files to choose from, a table of what each is and sets."""
    for folder in sorted({path.parent for path in conf.rglob("*.yaml")} - {conf}):
        group = folder.relative_to(conf)
        rows = (
            (f"`{group}={path.stem}`", first_comment(path), f"`{content(path)}`")
            for path in sorted(folder.glob("*.yaml"))
        )
        yield f"## Choices for `{group}`\n\n{table(('Choice', 'What it is', 'Its file'), rows)}"


def first_comment(path: Path) -> str:
    """The line with which a file of `conf/` says what it is."""
    lines = path.read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if not line.startswith("# @package"))
    return line.removeprefix("# ").rstrip(":")


def content(path: Path) -> str:
    """A file of `conf/` in one line of YAML."""
    return json.dumps(plain(OmegaConf.load(path)), ensure_ascii=False).replace('"', "")[1:-1]


def plain(config: Any) -> dict[str, Any]:
    """Nested dicts and lists, interpolations as they are written."""
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def type_name(annotation: Any) -> str:
    """The type of a value as one would say it, as in `int or null`."""
    name = annotation.__name__ if annotation in (bool, float, int, str) else str(annotation)
    return name.replace("typing.", "").replace("None", "null").replace(" | ", " or ")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m fmnist_pl.options",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    print(reference(), end="")


if __name__ == "__main__":
    main()
