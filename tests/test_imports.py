"""What importing the package loads, and who may import whom."""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

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


PUBLIC = {
    "steppo_gym": """
        ByteCodec Call Codec DataError EnvProtocol Episode EpisodeOverError ExpertPolicy Failure FreeText
        InfrastructureError Invalid Policy RandomPolicy Request Response SamplingGapError ScriptedPolicy Step
        SteppoGymError TextEnv Transition UnknownTaskError UnsupportedVersionError read_episodes register_envs
        registered_ids write_episodes""",
    "steppo_gym.credit": """
        Credit CreditRule Moments Records discounted_returns explained_variance gae gagpo_advantages gigpo_advantages
        group_advantages hgpo_advantages merge_moments moments rloo_advantages state_groups step_advantages
        token_advantages token_returns whiten""",
    "steppo_gym.retrieval": """
        Hit Passage Retriever open_retriever open_retriever_for open_retriever_streamed read_corpus""",
    "steppo_gym.rollouts": """
        Answer Assignment ByteCodec Codec CorruptedExpert EnvFactory EnvPool Episode ExpertPolicy Failure MessageCodec
        Policy RandomPolicy Request Response Rollout RolloutStats ScriptedPolicy Snapshot Step StreamingPolicy collect
        demonstrate read_episodes require_played take_snapshots write_episodes""",
    "steppo_gym.testing": "ContractError MakeEnv check_text_env",
}
"""Packages that export names, and the names that users may count on; a new one is added here."""
PUBLIC_MODULES = {
    "steppo_gym.adapters": ("trl",),
    "steppo_gym.audit": ("points", "scores", "study"),
    "steppo_gym.evaluation": ("chat_server", "panels", "scores"),
    "steppo_gym.trainers": (
        "branching_rules",
        "critic_config",
        "evaluation",
        "newer_rules",
        "policy.chat",
        "rules",
        "run.launch",
        "setting",
        "step_config",
        "step_trainer",
    ),
    "steppo_gym.trainers.policy": ("chat",),
    "steppo_gym.trainers.run": ("launch",),
}
"""Packages that export nothing and whose modules are imported from instead."""
MOST_EQUAL_LINES = 9
"""That two places of the package may share, imports and blank lines not counted."""
MOST_MODULES = 14
"""In one folder, `__init__.py` not counted; `trainers/` has a script for each algorithm beside them."""


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


def modules_by_name():
    """Every module of the package under the name it is imported by, which is not where the folder lies."""
    found = {}
    for folder, layer in FOLDERS.items():
        package = "steppo_gym" if layer == "core" else layer
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = (package, *path.relative_to(REPOSITORY / folder).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def import_graph():
    """Module to the modules of the package that its file names, inside functions and for types alone too.

    That importing a module runs its parent packages first is left out: every file would depend on `steppo_gym`.
    """
    modules = modules_by_name()
    graph = {}
    for name, path in modules.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # `from package import module` needs the module, `from module import name` that module.
                full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                found |= {path if path in modules else str(node.module) for path in full.values()}
        graph[name] = {imported for imported in found if imported in modules} - {name}
    return graph


def test_modules_do_not_import_in_a_circle():
    graph = import_graph()
    assert graph["steppo_gym.cli"] >= {"steppo_gym.play", "steppo_gym.errors"}
    assert "steppo_gym.envs.key_door.env" in graph and "steppo_gym.trainers.run.launch" in graph
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_no_folder_of_the_package_is_too_full_to_read():
    counts = {}
    for path in modules_by_name().values():
        folder = path.parent.relative_to(REPOSITORY).as_posix()
        counts[folder] = counts.get(folder, 0) + (path.name != "__init__.py")
    assert counts.pop("trainers") > MOST_MODULES, "without its scripts it no longer needs to be left out"
    full = {folder: count for folder, count in counts.items() if count > MOST_MODULES}
    assert not full, f"more than {MOST_MODULES} modules: lay some into a room of their own"


def lines_without_imports(path):
    """Numbers and text of the lines that say something."""
    text = path.read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    left_out = {number for node in imports for number in range(node.lineno, node.end_lineno + 1)}
    numbered = enumerate(map(str.strip, text.splitlines()), start=1)
    return [(number, line) for number, line in numbered if line and number not in left_out]


def test_nothing_is_written_twice():
    length, first, again = MOST_EQUAL_LINES + 1, {}, []
    for name, path in modules_by_name().items():
        lines = lines_without_imports(path)
        for begin in range(len(lines) - length + 1):
            numbers, texts = zip(*lines[begin : begin + length], strict=True)
            where = f"{name}:{numbers[0]}"
            if first.setdefault(texts, where) != where:
                again.append(f"{first[texts]} and {where}")
    assert len(first) > 10_000
    assert not again


def packages_with_exports():
    for name, path in modules_by_name().items():
        if path.name == "__init__.py" and any(
            isinstance(node, ast.ImportFrom) for node in ast.parse(path.read_text()).body
        ):
            yield name


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_stay(name):
    assert name in packages_with_exports()
    assert set(importlib.import_module(name).__all__) == set(PUBLIC[name].split())


def test_every_package_exports_names_or_says_that_it_is_internal():
    modules = modules_by_name()
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    assert set(packages_with_exports()) == set(PUBLIC)
    for name in packages - set(PUBLIC):
        said = ast.get_docstring(ast.parse(modules[name].read_text(encoding="utf-8"))) or ""
        public = PUBLIC_MODULES.get(name, ())
        assert all(f"`{module}`" in said and f"{name}.{module}" in modules for module in public), f"{name}: {said}"
        assert public or "internal" in said.lower(), f"{name} exports nothing and does not say that it is internal"


@pytest.mark.parametrize("name", list(packages_with_exports()))
def test_public_names_are_listed_sorted_and_what_the_package_imports(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, public) for public in module.__all__)
    tree = ast.parse(modules_by_name()[name].read_text(encoding="utf-8"))
    imported = [
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert sorted(imported) == module.__all__


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
