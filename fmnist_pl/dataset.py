"""Find or fetch a data set, verify it, and leave copies of it.

    python -m fmnist_pl.dataset                          # Fashion-MNIST: find or fetch, verify
    python -m fmnist_pl.dataset name=mnist               # another that is known
    python -m fmnist_pl.dataset copy_to=/shared/fmnist   # and leave a copy for offline machines
    python -m fmnist_pl.dataset name=folder data.root=photos copy_to=idx    # class folders as files

Sources in order: the folder the user names (`data.root`), the Debian package, the user's cache;
then, fetched into the cache, public mirrors and `apt-get download`. A hash decides, of a file's
decompressed content or of the file as it is packed: a file that differs is never used. Where none
is known, as of unpacked files of MNIST, it is the form: 28x28 pixels, so many images, labels of the
classes.

Environment: FMNIST_DATA_DIR, the folder to fetch into (~/.cache/fmnist_pl); FMNIST_MIRRORS, base
URLs to fetch from, separated by spaces. What is not Fashion-MNIST is there in folders of its name.
"""

import logging
from dataclasses import dataclass, field

from fmnist_pl.data import source
from fmnist_pl.data.catalogue import named
from fmnist_pl.options.command import DataOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError
from fmnist_pl.options.schema import FASHION_MNIST


@dataclass
class Options:
    name: str = option(FASHION_MNIST, "Of a file of conf/data/.")
    copy_to: str | None = option(None, "Folder to write a verified copy into.")
    data: DataOptions = field(default_factory=DataOptions)


def work(options: Options) -> None:
    """Find or fetch, verify, copy if asked to; print the folder and the hashes."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    data = named(options.name)
    data.root = options.data.root
    folder, contents = source.find(data)
    if options.copy_to is not None:
        folder = source.expand_home(options.copy_to)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                source.store(folder / name, content)
        except OSError as error:
            raise UserError(f"copy_to={folder} cannot be written: {error}.") from None
    hashed = data.hashes.keys() >= contents.keys()
    print(f"{source.title(data)}, {'verified' if hashed else 'checked'}, in {folder}")
    for name, digest in source.digests(contents).items():
        print(f"{digest}  {name}")


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
