"""What is released and how: the lock, the image, the workflow, as far as reading them shows."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, BUILD = SETTINGS["project"], SETTINGS["tool"]["hatch"]["build"]
LOCK = (ROOT / "requirements.lock").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
RELEASE = (ROOT / ".github" / "workflows" / "release.yml").read_text()
LET_IN = re.findall("^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, in order: their names and what they say."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines.splitlines())]


def locked() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for line in re.findall(r"^[^#\s].*$", LOCK, re.MULTILINE):
        requirement = Requirement(line)
        found.setdefault(requirement.name.lower(), []).append(requirement)
    return found


def test_the_lock_has_all_that_is_needed_in_a_version_that_works() -> None:
    command = LOCK.splitlines()[1].removeprefix("#").strip()
    extras = re.findall(r"--extra (\w+)", command)
    wanted = PROJECT["dependencies"] + [
        line for extra in extras for line in PROJECT["optional-dependencies"][extra]
    ]
    pins = locked()
    for line in wanted:
        requirement = Requirement(line)
        assert requirement.name.lower() in pins, f"{line} is not in the lock. Type: {command}"
        for pin in pins[requirement.name.lower()]:
            [exactly] = pin.specifier
            assert exactly.operator == "=="
            assert exactly.version in requirement.specifier, f"{pin}, not {line}. Type: {command}"
    tried = (ROOT / ".ci" / "constraints.txt").read_text().split()
    assert {str(pin) for pins in locked().values() for pin in pins} >= set(tried)


def test_the_lock_is_of_no_machine() -> None:
    assert not re.search(r"://|^-|\s/|@ ", "\n".join(LOCK.splitlines()[2:]), re.MULTILINE)


def test_the_image_is_small_and_of_a_user_without_rights() -> None:
    steps = instructions()
    assert {name for name, _ in steps if name} == {
        *("FROM", "ARG", "COPY", "RUN", "ENV", "USER", "WORKDIR", "CMD")
    }
    [base] = [rest for name, rest in steps if name == "FROM"]
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", base)
    assert version
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["classifiers"]
    commands = [rest for name, rest in steps if name == "RUN"]
    assert all("--no-cache-dir" in command for command in commands if "pip install" in command)
    for command in commands:
        assert subprocess.run(["sh", "-n", "-c", command]).returncode == 0
    names = [name for name, _ in steps]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    [user] = [rest for name, rest in steps if name == "USER"]
    assert re.search(rf"useradd .*\b{user}\b", commands[-1])


def test_the_image_gets_what_builds_the_package() -> None:
    for name in LET_IN:
        assert (ROOT / name).exists()
    packages = BUILD["targets"]["wheel"]["packages"]
    needed = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "conf", *packages}
    assert needed <= set(LET_IN)
    assert "requirements.lock" in LET_IN


def steps_of(job: str) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = yaml.safe_load(RELEASE)["jobs"][job]["steps"]
    return steps


def test_a_tag_is_built_tried_and_published() -> None:
    workflow = yaml.safe_load(RELEASE)
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # `on`, to YAML 1.1
    assert workflow["permissions"] == {"contents": "read"}
    publish = workflow["jobs"]["publish"]
    assert publish["needs"] == "build"
    assert publish["permissions"] == {"id-token": "write"}
    *_, last = steps_of("publish")
    assert last == {"uses": "pypa/gh-action-pypi-publish@release/v1"}
    assert "id-token" not in str(workflow["jobs"]["build"])


@pytest.mark.parametrize("tag", [f"v{PROJECT['version']}", "v9.9.9"])
def test_a_tag_that_is_not_the_version_is_not_published(tag: str) -> None:
    [check] = [
        step["run"] for step in steps_of("build") if step.get("name", "").startswith("The t")
    ]
    done = subprocess.run(["bash", "-ec", check], cwd=ROOT, env={"GITHUB_REF_NAME": tag})
    assert (done.returncode == 0) == (tag != "v9.9.9")


def test_torch_is_taken_from_its_own_index_in_the_versions_of_the_lock(tmp_path: Path) -> None:
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    [line] = re.findall(r"(grep -E .*) > /tmp/torch.txt", DOCKERFILE)
    words = [word.replace("/tmp/", "") for word in shlex.split(line)]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert found == (ROOT / ".ci" / "constraints.txt").read_text()
    assert shlex.split(line)[:3] == shlex.split(re.findall("grep -E .*", RELEASE)[0])[:3]
