"""What the pages name exists: links, anchors, commands, flags, panels, checkpoints; and their tables are tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steppo_gym.cli import main
from steppo_gym.evaluation.panels import shipped_panels
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.arguments import parse_arguments

REPOSITORY = Path(__file__).parents[1]
ROOMS = (".github", "docs", "envs", "trainers", "baselines", "benchmarks", "recipes", "converters", "examples")
PAGES = sorted([*REPOSITORY.glob("*.md"), *(page for room in ROOMS for page in (REPOSITORY / room).rglob("*.md"))])
OF_ALL_SCRIPTS = {"--config", "--help", "--help_all", "--version"}

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:steppo-gym|python -m steppo_gym\.|(?:python|torchrun) (?:--\S+ \S+ )*)[^`\n]*")
SCRIPT = re.compile(r"\b((?:trainers|benchmarks|baselines|converters|vectors|tests)[./]\w+)(?:\.py)?(?= |$)(.*)")
FLAG = re.compile(r"(?<!\S)--[A-Za-z][\w-]*")


def name(page):
    return page.relative_to(REPOSITORY).as_posix()


def words_of(page):
    return page.read_text(encoding="utf-8")


def headings(page):
    """The anchors that GitHub and the site make of a page's headings."""
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", words_of(page)), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        yield re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def commands(page):
    """Every command of a page, in blocks and in lines, without its comment."""
    text = re.sub(r"\\\n\s*", " ", words_of(page))
    for command in COMMAND.findall(text):
        yield re.split(r"\s#|[;|&)]", command)[0].rstrip(" .,")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", words_of(page))):
        path, _, anchor = link.partition("#")
        if ":" in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_rows_of_tables_have_as_many_cells_as_their_heads(page):
    for block in re.findall(r"(?:^\|.*\n)+", words_of(page), re.MULTILINE):
        rows = block.splitlines()
        assert len(rows) > 1 and re.fullmatch(r"[|: -]+", rows[1]), f"no head: {rows[0]}"
        cells = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
        assert len(set(cells)) == 1, rows[cells.index(next(n for n in cells if n != cells[0]))]


def test_flags_of_the_command_exist(capsys):
    known: dict[str, set[str]] = {}
    seen = 0
    for page in PAGES:
        for command in commands(page):
            words = command.partition(" -- ")[0].split()
            if words[0] != "steppo-gym" or len(words) < 2 or not re.fullmatch(r"[a-z-]+", words[1]):
                continue
            of = " ".join(words[1:3] if words[1] == "panel" and len(words) > 2 else words[1:2])
            if of not in known:
                with pytest.raises(SystemExit) as ended:
                    main([*of.split(), "--help"])
                said = capsys.readouterr()
                assert ended.value.code == 0, f"{name(page)}: {command}: {said.err}"
                known[of] = set(re.findall(r"--[\w-]+", said.out))
            flags = set(FLAG.findall(" ".join(words)))
            assert flags <= known[of], f"{name(page)}: {command}"
            seen += len(flags)
    assert seen > 50


def test_flags_of_scripts_exist(capsys):
    known: dict[str, set[str]] = {}
    seen = 0
    for page in PAGES:
        for command in commands(page):
            for path, rest in SCRIPT.findall(command):
                script = REPOSITORY / f"{path.replace('.', '/')}.py"
                assert script.exists(), f"{name(page)}: {command}"
                flags = set(FLAG.findall(rest))
                rule = ALGORITHMS.get(script.stem) if script.parent.name == "trainers" else None
                if rule is None:
                    # Other scripts build some of their flags from names.
                    missing = [flag for flag in flags if not names_flag(script.read_text(encoding="utf-8"), flag)]
                    assert not missing, f"{name(page)}: {command}: {missing}"
                elif script.stem not in known:
                    with pytest.raises(SystemExit):
                        parse_arguments(rule, ["--help_all"])
                    known[script.stem] = set(re.findall(r"--\w+", capsys.readouterr().out)) | OF_ALL_SCRIPTS
                assert rule is None or flags <= known[script.stem], f"{name(page)}: {command}"
                seen += len(flags)
    assert seen > 80


def names_flag(source, flag):
    plain = re.escape(flag.removeprefix("--").removeprefix("no-")).replace(r"\-", "[_-]")
    return re.search(rf"""["'](?:--)?{plain}["']|\b{plain}\b\s*[:=]""", source)


def test_make_targets_exist():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in re.findall(r"^make (\w+)|`make (\w+)", words_of(page), flags=re.MULTILINE):
            assert re.search(rf"^{''.join(target)}:", makefile, flags=re.MULTILINE), f"{name(page)}: make {target}"


def test_panels_and_recipes_that_are_named_exist():
    for page in PAGES:
        for command in commands(page):
            for panel in re.findall(r"--panel (\S+)", command):
                stands_for_any = panel.isupper() or panel.endswith(".json")
                assert stands_for_any or panel in shipped_panels(), f"{name(page)}: {command}"
            for recipe in re.findall(r"recipes/[\w.-]+\.yaml", command):
                assert (REPOSITORY / recipe).exists(), f"{name(page)}: {command}"


def test_a_run_with_default_settings_has_the_checkpoints_that_are_named():
    seen = 0
    for page in PAGES:
        for env, script, rest in re.findall(r"runs/([a-z]\w*)-(\w+)-seed\d(\S*(?: --iteration \d+)?)", words_of(page)):
            iteration = re.search(r" --iteration (\d+)", rest)
            checkpoint = re.search(r"checkpoint-(\d+)", rest)
            if not iteration and not checkpoint:
                continue
            config = parse_arguments(ALGORITHMS[script], ["--env", env, "--report_to", "none"]).config
            every = config.save_every * config.updates_in_iteration
            update = int(checkpoint[1]) if checkpoint else (int(iteration[1]) - 1) * config.updates_in_iteration
            assert 0 < update <= config.max_steps and update % every == 0, f"{name(page)}: {rest}"
            seen += 1
    assert seen >= 2
