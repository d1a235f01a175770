"""What the documentation site has beside the pages in `docs/`: cards, algorithms, the API and the menu.

A hook of MkDocs (mkdocs.yml). Nothing it makes is kept in the repository: pages of environments are their cards and the
docstrings of their classes, pages of algorithms are their lines of `algorithms.md` and the docstrings of their rules,
and the API is read from the sources without importing them.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import shutil
from pathlib import Path

import gymnasium
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from steppo_gym import registered_ids
from steppo_gym.credit.records import CreditRule
from steppo_gym.trainers.rules import ALGORITHMS

REPOSITORY = Path(__file__).parents[1]
IMPORT_NAMES = REPOSITORY / "build" / "import_names"
"""The package with its folders where their import names say, as links; see the decision record in architecture.md."""
MAPPED = ("envs", "trainers", "baselines")
TUTORIALS = ("train_your_own_model", "compare_two_rules", "write_an_environment")
GUIDES = {
    "Training": ("trainer", "starts", "real_models", "scaling", "off_policy", "reliability"),
    "Measuring": ("evaluating", "panels", "viewing", "audit"),
    "Your own": ("own_environment", "own_credit_rule", "own_loop", "adapters", "vectors"),
    "How it works": ("architecture", "endings"),
}
"""Parts of the menu. A page of `docs/` that is in none of them, nor in the menu elsewhere, ends the build."""
COPIED = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CODE_OF_CONDUCT.md": "project/conduct.md",
    "SECURITY.md": "project/security.md",
    "trainers/README.md": "trainer.md",
    "baselines/README.md": "results/benchmark.md",
    "baselines/RESULTS.md": "results/results.md",
    "baselines/AUDITS.md": "results/audits.md",
    "baselines/STUDY.md": "results/study.md",
    "benchmarks/README.md": "results/speed.md",
}
"""Pages elsewhere in the repository, and what they are called in the site."""
API = ("steppo_gym", "steppo_gym/rollouts", "steppo_gym/credit", "steppo_gym/evaluation", "steppo_gym/audit",
       "steppo_gym/adapters", "steppo_gym/retrieval", "steppo_gym/storage", "steppo_gym/testing", "trainers",
       "trainers/policy", "trainers/run")  # fmt: skip
"""Folders whose modules are documented, a page for each folder."""

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_startup(command: str, dirty: bool) -> None:
    """Lay the package where its import names say, before mkdocstrings looks there."""
    del command, dirty
    lay_import_names(IMPORT_NAMES)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write the menu."""
    config.nav = [
        {"Home": "index.md"},
        {"Tutorials": [f"tutorials/{name}.md" for name in TUTORIALS]},
        {"Guides": ["faq.md", *({part: [f"{name}.md" for name in names]} for part, names in GUIDES.items())]},
        {"Environments": [{name: f"environments/{name}.md"} for name in cards()]},
        {
            "Algorithms": [
                "algorithms.md",
                *({rule.title(): f"algorithms/{name}.md"} for name, rule in ALGORITHMS.items()),
            ]
        },
        {"Results": [uri for uri in COPIED.values() if uri.startswith("results/")]},
        {"API": [{_package(folder): f"api/{_package(folder)}.md"} for folder in API]},
        {"Project": [uri for uri in COPIED.values() if uri.startswith("project/")]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the figures."""
    made = {uri: (REPOSITORY / path).read_text(encoding="utf-8") for path, uri in COPIED.items()}
    made |= {f"environments/{name}.md": environment_page(name, classes) for name, classes in cards().items()}
    made |= {f"algorithms/{script}.md": algorithm_page(script) for script in ALGORITHMS}
    made |= {f"api/{_package(folder)}.md": api_page(folder) for folder in API}
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    for path in sorted((REPOSITORY / "baselines" / "figures").glob("*.svg")):
        files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links between files of the repository lead to their pages, or to the repository where they have none."""
    del files
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]  # it would be this page alone
    origins = {uri: path for path, uri in pages().items()}
    uri = page.file.src_uri
    here = posixpath.dirname(origins.get(uri, f"docs/{uri}"))

    def lead(link: re.Match[str]) -> str:
        target, mark, anchor = link[2].partition("#")
        if not target or ":" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(here, target))
        if path in pages():
            found = posixpath.relpath(pages()[path], posixpath.dirname(uri) or ".")
        elif (REPOSITORY / path).exists():
            found = f"{config.repo_url}/blob/main/{path}"
        else:
            found = target
        return f"{link[1]}{found}{mark}{anchor}{link[3]}"

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(lead, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(lead, markdown[end:])])


def pages() -> dict[str, str]:
    """Path in the repository to the page or figure of the site that shows it."""
    docs = REPOSITORY / "docs"
    own = {f"docs/{uri}": uri for path in docs.rglob("*.md") if (uri := path.relative_to(docs).as_posix())}
    figures = {
        f"baselines/figures/{path.name}": f"figures/{path.name}" for path in REPOSITORY.glob("baselines/figures/*")
    }
    return COPIED | own | figures | {f"envs/{name}/README.md": f"environments/{name}.md" for name in cards()}


def lay_import_names(folder: Path) -> None:
    """Make `folder/steppo_gym` of links: the core's files and rooms, and the folders that are mapped into it."""
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "steppo_gym"
    package.mkdir(parents=True)
    inside = [path for path in (REPOSITORY / "steppo_gym").iterdir() if path.name != "__pycache__"]
    for path in [*inside, *(REPOSITORY / name for name in MAPPED)]:
        (package / path.name).symlink_to(path, target_is_directory=path.is_dir())


def cards() -> dict[str, dict[str, str]]:
    """Folder in `envs/` to the ids it registers, each with its class."""
    found: dict[str, dict[str, str]] = {}
    for env_id in registered_ids():
        module, _, name = str(gymnasium.spec(env_id).entry_point).partition(":")
        found.setdefault(module.split(".")[2], {})[env_id] = f"{module}.{name}"
    return dict(sorted(found.items()))


def environment_page(name: str, classes: dict[str, str]) -> str:
    """The card of a folder in `envs/`, and the classes of its ids."""
    card = (REPOSITORY / "envs" / name / "README.md").read_text(encoding="utf-8")
    heading = "\n## Keywords\n\nWhat `gymnasium.make` takes beside the id.\n"
    options = "    options:\n      members: false\n      heading_level: 3\n      show_root_full_path: false\n"
    return "\n".join([card, heading, *(f"`{env_id}`\n\n::: {path}\n{options}" for env_id, path in classes.items())])


def algorithm_page(script: str) -> str:
    """What `algorithms.md` says of an algorithm, how to run it, and its rule with all settings."""
    rule = ALGORITHMS[script]
    title = rule.title()
    text = (REPOSITORY / "docs" / "algorithms.md").read_text(encoding="utf-8")
    header = re.search(r"^\| script .*\n\|[-| ]+\|$", text, re.MULTILINE)
    row = re.search(rf"^\| `{script}\.py` \|.*$", text, re.MULTILINE)
    note = re.search(rf"^- \*\*{re.escape(title)}\*\*(.*(?:\n  .*)*)", text, re.MULTILINE)
    if not (header and row and note):
        raise ValueError(
            f"docs/algorithms.md must have a row for `{script}.py` and an entry that begins with **{title}**."
        )
    cells = zip(header[0].partition("\n")[0].split(" | "), row[0].split(" | "), strict=True)
    first, *others = (f"| {name.strip('| ')} | {cell.strip('| ')} |" for name, cell in cells)
    table = "\n".join([first, "|---|---|", *others])
    return f"""# {title}

{table}

The notation is that of [all algorithms on a page](../algorithms.md).

```
python trainers/{script}.py --env alfworld
```

**{title}**{re.sub(r"^  ", "", note[1], flags=re.MULTILINE)}

## Settings

{_settings(rule)}

## Rule

::: {rule.__module__}.{rule.__qualname__}
    options:
      heading_level: 3
      show_signature: false
"""


def _settings(rule: type[CreditRule]) -> str:
    """The flags of an algorithm's own, and what it changes in those of every run."""
    own = [f"| `--{one.name}` | {one.default} | {one.metadata['help']} |" for one in dataclasses.fields(rule)]
    shared = [
        f"| `--{name}` | {value} | as in every script, but for this default |" for name, value in rule.defaults.items()
    ]
    return "\n".join(["| flag | default | |", "|---|---|---|", *own, *shared])


def api_page(folder: str) -> str:
    """A page with every module of a folder, but for the rules: each has the page of its algorithm."""
    package = _package(folder)
    of_rules = {rule.__module__ for rule in ALGORITHMS.values()}
    names = sorted(path.stem for path in (REPOSITORY / folder).glob("*.py") if path.stem != "__init__")
    modules = [name for name in names if f"{package}.{name}" not in of_rules]
    options = "    options:\n      members: false\n" if modules else ""
    return "\n".join([f"# {package}\n", f"::: {package}\n{options}", *(f"::: {package}.{name}\n" for name in modules)])


def _package(folder: str) -> str:
    return folder.replace("/", ".") if folder.startswith("steppo_gym") else f"steppo_gym.{folder.replace('/', '.')}"
