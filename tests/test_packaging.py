"""The wheel holds what the folders hold, and works without them."""

import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import gymnasium
import numpy
import pytest

import steppo_gym

REPOSITORY = Path(__file__).parents[1]

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
ROOTS = {
    "steppo_gym": "steppo_gym",
    "envs": "steppo_gym.envs",
    "trainers": "steppo_gym.trainers",
    "baselines": "steppo_gym.baselines",
}


def folders_on_disk():
    """Package name to folder, for every folder with an `__init__.py`."""
    found = {}
    for root, package in ROOTS.items():
        for init in sorted((REPOSITORY / root).rglob("__init__.py")):
            folder = init.parent.relative_to(REPOSITORY)
            found[".".join([package, *folder.parts[1:]])] = folder.as_posix()
    return found


def test_package_list_is_what_is_on_disk():
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders_on_disk())
    mapped = {package: SETUPTOOLS["package-dir"].get(package) for package in folders_on_disk()}
    assert mapped == folders_on_disk()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the sources by the installed setuptools: nothing is fetched, nothing left behind."""
    pytest.importorskip("setuptools", minversion=PROJECT["build-system"]["requires"][0].partition(">=")[2])
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ROOTS:
        shutil.copytree(REPOSITORY / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]):
        shutil.copy(REPOSITORY / name, source)
    command = [sys.executable, "-m", "pip", "wheel", source, "--wheel-dir", target, "--quiet"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir", "--disable-pip-version-check"]
    subprocess.run([*command, *offline], check=True, capture_output=True, text=True)
    (built,) = target.glob("steppo_gym-*.whl")
    return built


def test_wheel_holds_every_module_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for package, folder in folders_on_disk().items():
        for path in (REPOSITORY / folder).glob("*.py"):
            assert f"{package.replace('.', '/')}/{path.name}" in names
    assert not [name for name in names if not name.startswith("steppo_gym")]
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert "steppo_gym/py.typed" in names


def test_the_version_is_written_in_one_place(wheel):
    assert "version" in PROJECT["project"]["dynamic"]
    assert wheel.name.startswith(f"steppo_gym-{steppo_gym.__version__}-")


def test_mypy_finds_the_types_of_the_installed_wheel(wheel, tmp_path):
    """A strict check of a user's script, which must be right, and of one that misuses the package and must not pass."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").rglob("site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    # What the package needs, without the editable install of the sources, whose finder mypy does not know.
    (site / "needs.pth").write_text("\n".join({str(Path(module.__file__).parents[1]) for module in (gymnasium, numpy)}))
    script = "import steppo_gym\nfrom steppo_gym.rollouts import EnvFactory\n"
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(f'{script}env: steppo_gym.TextEnv = EnvFactory("steppo/KeyDoor-v0").make()\n')
    wrong.write_text(f'{script}env: int = EnvFactory("steppo/KeyDoor-v0").make()\n')
    (interpreter,) = (tmp_path / "venv").rglob("bin/python")
    # Most of the time would go into what the package needs, and nothing here is of those types but gymnasium's.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = skip\n[mypy-steppo_gym.*,gymnasium.*]\nfollow_imports = silent\n"
    )
    options = ["--strict", "--no-error-summary", "--python-executable", str(interpreter), "--cache-dir", str(tmp_path)]
    command = [sys.executable, "-I", "-m", "mypy", *options, str(right), str(wrong)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = done.stdout.splitlines()
    assert done.returncode == 1 and len(errors) == 1, done.stdout + done.stderr
    assert errors[0].startswith("wrong.py:3: error:") and '"TextEnv"' in errors[0], errors


def test_wheel_imports_from_its_own_folder(wheel, tmp_path):
    """In isolated mode and without the finder of an editable install, so that nothing of the sources is seen."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
sys.path.insert(0, sys.argv[1])
import gymnasium, steppo_gym, steppo_gym.envs.alfworld, steppo_gym.trainers, steppo_gym.baselines
for module in (steppo_gym, steppo_gym.envs.alfworld, steppo_gym.trainers, steppo_gym.baselines):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
env = gymnasium.make("steppo/KeyDoor-v0")
assert sys.modules["steppo_gym.envs.key_door.env"].__file__.startswith(sys.argv[1])
env.reset(seed=0)
"""
    command = [sys.executable, "-I", "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
