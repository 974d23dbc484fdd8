"""Find or fetch Fashion-MNIST, verify it, and leave copies of it.

    python -m fmnist_pl.dataset                          # find or fetch, verify, say where
    python -m fmnist_pl.dataset copy_to=/shared/fmnist   # and leave a copy for offline machines

Sources in order: the folder the user names (`data.root`), the Debian package, the user's cache;
then, fetched into the cache, public mirrors and `apt-get download`. The SHA-256 of a file's
decompressed content decides: a file that differs is never used.

Environment: FMNIST_DATA_DIR, the folder to fetch into (~/.cache/fmnist_pl); FMNIST_MIRRORS, base
URLs to fetch from, separated by spaces.
"""

import logging
from dataclasses import dataclass, field

from fmnist_pl.data import source
from fmnist_pl.options.command import DataOptions, command
from fmnist_pl.options.fields import option
from fmnist_pl.options.messages import UserError


@dataclass
class Options:
    copy_to: str | None = option(None, "Folder to write a verified copy into.")
    data: DataOptions = field(default_factory=DataOptions)


def work(options: Options) -> None:
    """Find or fetch, verify, copy if asked to; print the folder and the hashes."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder, contents = source.find(options.data.root)
    if options.copy_to is not None:
        folder = source.expand_home(options.copy_to)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in source.SHA256:
                source.store(folder / name, contents[name])
        except OSError as error:
            raise UserError(f"copy_to={folder} cannot be written: {error}.") from None
    print(f"Fashion-MNIST, verified, in {folder}")
    for name, digest in source.SHA256.items():
        print(f"{digest}  {name}")


main = command(__doc__, Options, work)

if __name__ == "__main__":
    main()
