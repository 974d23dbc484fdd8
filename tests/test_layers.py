"""The plan of the rooms, held against the imports: none goes upward, none in a circle."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fmnist_pl"

# From the top; a room may import from those below it. A command is what one types after
# `python -m fmnist_pl.`: it imports from any room, and only the interface imports from it.
LAYERS = ("interface", "command", "sweep", "training", "report", "model", "config", "drawing")
LAYERS += ("data", "files", "options")


def modules() -> dict[str, Path]:
    """By name below the package, as `data.augment`."""
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join(name.parts): path for name, path in paths.items() if name.name != "__init__"}


MODULES = modules()


def room(module: str) -> str:
    first, _, rest = module.partition(".")
    return "command" if rest == "__main__" or first not in LAYERS else first


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: names the whole path of what it imports"
            found |= {f"{node.module}.{name.name}" for name in node.names} | {str(node.module)}
    names = {name.removeprefix("fmnist_pl.") for name in found if name.startswith("fmnist_pl.")}
    return {name for name in names if name in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_upward(module: str) -> None:
    for other in imports(MODULES[module]):
        assert LAYERS.index(room(module)) <= LAYERS.index(room(other)), other
        assert room(other) != "command" or module == "interface", f"{other} is a command"


def test_there_is_no_circle() -> None:
    below = {module: imports(path) for module, path in MODULES.items()}
    while lowest := {module for module, others in below.items() if not others}:
        below = {
            module: others - lowest for module, others in below.items() if module not in lowest
        }
    assert not below


def test_every_room_is_in_the_plan() -> None:
    rooms = defaultdict(set)
    for module in MODULES:
        rooms[room(module)].add(module)
    assert rooms.keys() == set(LAYERS)
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"conf", "__pycache__"}
    assert folders <= set(LAYERS)
