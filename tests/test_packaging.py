"""What users install is the program, all of it, and nothing else.

The wheel is built from the sdist, as an index would, out of a copy of the tracked files, without
the network; it is then installed into an environment of its own and run from elsewhere.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
SAMPLE: Final = ROOT / "samples" / "pmtud-blackhole-dr"
STALE: Final = "pcapdiag/rules/deleted_long_ago.py"

pytestmark = pytest.mark.needs("git")


def _tracked(*folders: str) -> list[str]:
    """Return the tracked files that still exist, relative to the root."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist and the wheel made of it."""
    pytest.importorskip("build", reason="build is in the test extra")
    if not (ROOT / ".git").exists():
        pytest.skip("not a git work tree")
    source = tmp_path_factory.mktemp("source")
    for name in _tracked():
        if name.startswith("samples/"):
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    stale = source / "build" / "lib" / STALE
    stale.parent.mkdir(parents=True)
    stale.write_text('"""A rule of an earlier version."""\n', encoding="utf-8")
    built = tmp_path_factory.mktemp("dist")
    run = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return built


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    """Return the wheel."""
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment where the wheel, and only it, was installed.

    The packages it depends on are those of this environment, seen through a .pth file.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    packages = _site_packages(home)
    before = {path.name for path in packages.iterdir()}
    subprocess.run(
        [home / "bin" / "pip", "install", "-q", "--no-deps", "--no-index", wheel],
        check=True,
        env={"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"},
    )
    after = {path.name for path in packages.iterdir()}
    (home / "added").write_text("\n".join(sorted(after - before)), encoding="utf-8")
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("\n".join(sorted(ours)), encoding="utf-8")
    return home


def _site_packages(home: Path) -> Path:
    (packages,) = home.glob("lib/python*/site-packages")
    return packages


def _contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_every_module(wheel: Path) -> None:
    """Every tracked Python file of the program is in the wheel: no package was forgotten."""
    program = {name for name in _tracked("pcapdiag") if name.endswith(".py")}
    rules = {f"pcapdiag/{name}" for name in _tracked("rules") if name.endswith(".py")}
    assert "pcapdiag/rules/__init__.py" in rules
    modules = {name for name in _contents(wheel) if name.endswith(".py")}
    assert modules == program | rules


def test_the_wheel_has_what_the_modules_read(wheel: Path) -> None:
    """Templates, the JSON schema and the typing marker are there."""
    data = {name for name in _tracked("pcapdiag") if not name.endswith((".py", ".md"))}
    assert {"pcapdiag/py.typed", "pcapdiag/report/schema.json"} <= data
    assert any(name.startswith("pcapdiag/report/templates/") for name in data)
    assert data <= _contents(wheel)


def test_the_wheel_has_nothing_else(wheel: Path) -> None:
    """No tests, samples or folders of the repository; the license and the program's entry are."""
    tops = {name.split("/")[0] for name in _contents(wheel)}
    (info,) = tops - {"pcapdiag"}
    assert info.endswith(".dist-info")
    names = {name.removeprefix(f"{info}/") for name in _contents(wheel) if name.startswith(info)}
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= names
    assert not [name for name in _contents(wheel) if {"tests", "samples"} & set(name.split("/"))]


def test_a_deleted_rule_stays_deleted(dist: Path, wheel: Path) -> None:
    """What an earlier build left in build/lib reaches neither the sdist nor the wheel."""
    assert STALE not in _contents(wheel)
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert any(name.endswith("/rules/__init__.py") for name in names)
    assert not [name for name in names if Path(STALE).name in name]


def test_only_the_package_is_installed(installed: Path) -> None:
    """One folder and its metadata reach site-packages: no top-level `rules` or `tests`."""
    added = (installed / "added").read_text(encoding="utf-8").split()
    assert added[0] == "pcapdiag"
    assert [name.partition("-")[0] for name in added] == ["pcapdiag", "pcapdiag"]


def test_the_installed_program_analyses_a_sample(installed: Path, tmp_path: Path) -> None:
    """Run from another folder, it finds the sample's fault and writes the report there."""
    captures = sorted(SAMPLE.glob("*.pcap"))
    assert captures
    run = subprocess.run(
        [installed / "bin" / "pcapdiag", "analyze", *captures],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "pmtud-blackhole" in run.stdout
    assert "pmtud-blackhole" in (tmp_path / "pcapdiag-report.html").read_text(encoding="utf-8")


def test_the_installed_program_is_the_one_that_ran(installed: Path, tmp_path: Path) -> None:
    """The environment's own copy is imported, not the repository's, rules included."""
    script = "import pcapdiag.rules; print(pcapdiag.__file__, *pcapdiag.rules.__path__)"
    run = subprocess.run(
        [installed / "bin" / "python", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for place in run.stdout.split():
        assert Path(place).is_relative_to(_site_packages(installed))
