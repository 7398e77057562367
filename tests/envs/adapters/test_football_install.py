"""``make football``: what is missing is said in one line before anything is fetched; what is installed is whole."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from envs.adapters.football import install

NO_ENGINE = {"gfootball_engine": None}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the engine, and refuse to fetch anything."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one, *rest: NO_ENGINE.get(one, one) and found(one, *rest))
    monkeypatch.setattr(install, "download", lambda folder: pytest.fail("fetched too early"))


def compiler_that_says(said: str, folder: Path) -> str:
    """Make a folder with every tool of the build, whose compiler prints ``said``; return what PATH should be."""
    for tool in install.TOOLS:
        (folder / tool).write_text(f"#!/bin/sh\ncat > /dev/null\nprintf '{said}'\n")
        (folder / tool).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.usefixtures("bare")
def test_missing_tools_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    assert install.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: the build of the football engine needs system packages: sudo apt-get install -y "
        "--no-install-recommends binutils cmake g++ libboost-all-dev libgl1-mesa-dev libsdl2-dev libsdl2-gfx-dev "
        "libsdl2-image-dev libsdl2-ttf-dev make"
    )


@pytest.mark.usefixtures("bare")
def test_only_the_missing_headers_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = r"MISSING SDL2/SDL_ttf.h\nMISSING boost/python.hpp\nMISSING boost/thread.hpp\n"
    monkeypatch.setenv("PATH", compiler_that_says(said, tmp_path))
    assert install.missing_packages() == ["libboost-all-dev", "libsdl2-ttf-dev"] and install.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("--no-install-recommends libboost-all-dev libsdl2-ttf-dev")


@pytest.mark.usefixtures("bare")
def test_a_python_without_boost_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", compiler_that_says(r"libboost_python9.so\n", tmp_path))
    assert install.missing_packages() == [] and install.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Boost.Python is not there for Python 3.") and "make football VENV=" in line


@pytest.mark.usefixtures("bare")
def test_another_system_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert install.main([]) == 2
    assert capsys.readouterr().err.startswith("error: make football builds on Linux, not on darwin")


def test_what_is_installed_is_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    engine = source / "third_party" / "gfootball_engine"
    for path in (engine / "__init__.py", engine / "LICENSE", engine / "data" / "a" / "b", engine / "ai.cpp",
                 source / "third_party" / "fonts" / "F.ttf", source / "gfootball" / "scenarios" / "5_vs_5.py",
                 source / "gfootball" / "scenarios" / "tests" / "t.py", tmp_path / "libgame.so",
                 site / "gfootball_engine" / "old"):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    target = install.install(source, tmp_path / "libgame.so", site)
    assert {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()} == {
        f"gfootball_engine/{name}"
        for name in ("__init__.py", "LICENSE", "data/a/b", "fonts/F.ttf", "scenarios/5_vs_5.py", "_gameplayfootball.so")
    }
    assert (target / "_gameplayfootball.so").read_text() == "libgame.so"
