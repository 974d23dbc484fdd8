"""The documentation as a site: README, CHANGELOG, these pages and the notebook, as they are.

In the root of a checkout: `sphinx-build -W -c docs . site`.
"""

import shutil
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

project = "fmnist_pl"
author = "The fmnist_pl authors"
version = release = version_of("fmnist_pl")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
include_patterns = ["*.md", "docs/*.md", "examples/*.ipynb"]
root_doc = "README"
html_theme = "furo"
html_title = f"fmnist_pl {version}"

myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
nb_execution_mode = "off"  # its pictures are in the file
default_role = "code"  # of docstrings
autodoc_typehints = "description"

CONTENTS = {
    "Begin": ["examples/study", "docs/python", "docs/photos", "docs/coming-from"],
    "The study": ["docs/study", "docs/results", "docs/statistics", "docs/lightning"],
    "Further": ["docs/extending", "docs/search", "docs/cluster", "docs/gpu"],
    "Reference": ["docs/options", "CHANGELOG", "CONTRIBUTING"],
}


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """What the site lists at its side, which README does not need elsewhere."""
    if page == root_doc:
        for caption, pages in CONTENTS.items():
            lines = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"


def open_with_readme(app: Sphinx, error: Exception | None) -> None:
    """README is the page that an address without a name shows."""
    if not error:
        shutil.copyfile(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("build-finished", open_with_readme)
