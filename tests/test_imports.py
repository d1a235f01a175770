"""What importing the package loads, and who may import whom."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import steppo_gym
import steppo_gym.testing

REPOSITORY = Path(__file__).parents[1]

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "alfworld",
    "textworld",
    "matplotlib",
    "httpx",
    "bm25s",
    "tantivy",
    "steppo_gym.envs",
    "steppo_gym.retrieval",
    "steppo_gym.trainers",
)
FOLDERS = {
    "steppo_gym": "core",
    "envs": "steppo_gym.envs",
    "trainers": "steppo_gym.trainers",
    "baselines": "steppo_gym.baselines",
}
FORBIDDEN = {
    "core": ("steppo_gym.envs", "steppo_gym.trainers", "steppo_gym.baselines"),
    "steppo_gym.envs": ("steppo_gym.trainers", "steppo_gym.baselines"),
    "steppo_gym.trainers": ("steppo_gym.envs", "steppo_gym.baselines"),
    "steppo_gym.baselines": (),
}


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["steppo_gym", "steppo_gym.testing", "steppo_gym.cli"])
def test_importing_loads_nothing_heavy(module):
    modules = loaded_by(f"import {module}")
    assert module in modules
    assert not [name for name in HEAVY if name in modules]


def test_making_an_environment_loads_its_own_packages_alone():
    modules = loaded_by("import gymnasium, steppo_gym; gymnasium.make('steppo/KeyDoor-v0')")
    assert "steppo_gym.envs.key_door.env" in modules
    assert not {"torch", "transformers", "textworld", "alfworld", "steppo_gym.envs.alfworld"} & modules


def imported_names(path):
    """Dotted names of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            yield from ("." * node.level + f"{node.module}.{alias.name}" for alias in node.names)


def source_files():
    for folder, layer in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            yield pytest.param(path, layer, id=str(path.relative_to(REPOSITORY)))


@pytest.mark.parametrize(("path", "layer"), list(source_files()))
def test_who_imports_whom(path, layer):
    names = list(imported_names(path))
    assert not [name for name in names if name.startswith(".")], "absolute imports only"
    below = [name for name in names for part in FORBIDDEN[layer] if name == part or name.startswith(f"{part}.")]
    assert not below, f"{layer} must not import {below}"


@pytest.mark.parametrize("name", ["steppo_gym", "steppo_gym.testing"])
def test_public_names_are_listed_sorted_and_there(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, public) for public in module.__all__)


def test_what_the_package_imports_is_what_it_lists():
    tree = ast.parse((REPOSITORY / "steppo_gym" / "__init__.py").read_text(encoding="utf-8"))
    imported = [
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert sorted(imported) == list(steppo_gym.__all__)


def test_no_module_is_named_like_a_dependency():
    dependencies = {
        "alfworld",
        "datasets",
        "gymnasium",
        "httpx",
        "numpy",
        "peft",
        "tokenizers",
        "torch",
        "transformers",
        "trl",
    }
    for folder in ("trainers", "baselines"):
        stems = {path.stem for path in (REPOSITORY / folder).rglob("*.py")}
        assert not stems & (dependencies | set(sys.stdlib_module_names)), folder
