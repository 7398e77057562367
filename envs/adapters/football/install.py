"""Build the engine of Google Research Football from its source distribution and install it: ``make football``.

Nothing but the engine, its data and the scenario files is installed; the package's Python environment would need gym,
which current tools cannot install. The build takes about eight minutes on one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

SOURCE = "gfootball==2.10.2 --hash=sha256:%s"
DIGEST = "1b0fdcfa78b7fadc3730585ee7f0f412ba825c27e422b2b85ea0cf7ba57800b6"
HEADERS = {  # what the build includes -> the Debian and Ubuntu package that provides it
    "GL/gl.h": "libgl1-mesa-dev",
    "EGL/egl.h": "libgl1-mesa-dev",
    "SDL2/SDL.h": "libsdl2-dev",
    "SDL2/SDL_image.h": "libsdl2-image-dev",
    "SDL2/SDL_ttf.h": "libsdl2-ttf-dev",
    "SDL2/SDL2_gfxPrimitives.h": "libsdl2-gfx-dev",
    "boost/thread.hpp": "libboost-all-dev",
    "boost/python.hpp": "libboost-all-dev",
}
TOOLS = {"cmake": "cmake", "make": "make", "c++": "g++", "strip": "binutils"}
COMMAND = "sudo apt-get install -y --no-install-recommends"


class InstallError(Exception):
    """One line that says what has to be done first."""


def missing_packages() -> list[str]:
    """Return the Debian packages to install before the engine can be built."""
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if "g++" in missing:  # without a compiler, headers cannot be looked up
        return sorted({*missing, *HEADERS.values()})
    asked = "".join(f"#if !__has_include(<{header}>)\nMISSING {header}\n#endif\n" for header in HEADERS)
    told = _run(["c++", "-std=c++17", "-E", "-P", "-x", "c++", "-"], given=asked)
    found = [HEADERS[line.split()[1]] for line in told.splitlines() if line.startswith("MISSING")]
    return sorted({*missing, *found})


def has_library(name: str) -> bool:
    """Return whether the linker finds the library file ``name``."""
    return Path(_run(["c++", f"-print-file-name={name}"]).strip()).is_absolute()


def require_system() -> None:
    """Raise InstallError, one line with the command that helps, if the system is not Linux or lacks a package."""
    if sys.platform != "linux":
        raise InstallError(f"make football builds on Linux, not on {sys.platform}; elsewhere it has not been tried")
    packages = missing_packages()
    if packages:
        raise InstallError(f"the build of the football engine needs system packages: {COMMAND} {' '.join(packages)}")


def require_python() -> None:
    """Raise InstallError if Boost.Python is not installed for this Python, or this Python has no headers."""
    if not has_library(f"libboost_python{_version('')}.so"):
        raise InstallError(
            f"Boost.Python is not there for Python {_version('.')}; a system has it for its own Python alone: make the "
            "environment with that one (make football VENV=.venv-football PYTHON=/usr/bin/python3)"
        )
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise InstallError(f"Python's headers are not at {header}: {COMMAND} python{_version('.')}-dev")


def _version(between: str) -> str:
    return between.join(map(str, sys.version_info[:2]))


def _run(command: Sequence[str], cwd: Path | None = None, given: str = "") -> str:
    """Run a command and return what it printed. Raise InstallError with its last line if it fails."""
    try:
        done = subprocess.run(command, cwd=cwd, input=given, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InstallError(f"{command[0]} cannot be started: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        log = None if cwd is None else cwd / "football-build.log"
        if log is not None:
            log.write_text(done.stdout + done.stderr)
        raise InstallError(f"{' '.join(command[:3])} failed: {last}{f' (all of it: {log})' if log else ''}")
    return done.stdout


def download(folder: Path) -> Path:
    """Download the source distribution, verify its digest, and return the folder that it unpacks to."""
    wanted = folder / "wanted.txt"
    wanted.write_text(SOURCE % DIGEST)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run([*pip, "--no-binary", ":all:", "-r", wanted.name, "-d", "."], folder)
    (archive,) = folder.glob("gfootball-*.tar.gz")
    shutil.unpack_archive(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


def build(source: Path, jobs: int) -> Path:
    """Compile the engine against this Python and return the stripped library."""
    engine, include = source / "third_party" / "gfootball_engine", sysconfig.get_path("include")
    options = [f"-DPython_INCLUDE_DIR={include}"]
    library = Path(str(sysconfig.get_config_var("LIBDIR")), str(sysconfig.get_config_var("LDLIBRARY")))
    if library.suffix == ".so" and library.is_file():
        options.append(f"-DPython_LIBRARY={library}")  # else CMake finds the system's own
    _run(["cmake", ".", *options], engine)
    _run(["make", f"-j{jobs}"], engine)
    _run(["strip", "libgame.so"], engine)
    return engine / "libgame.so"


def install(source: Path, library: Path, site: Path) -> Path:
    """Put library, data, font, licence and scenarios into the folder ``site``/gfootball_engine, all or nothing."""
    target, fresh = site / "gfootball_engine", site / ".gfootball_engine.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    engine = source / "third_party" / "gfootball_engine"
    for name in ("__init__.py", "LICENSE"):
        shutil.copy(engine / name, fresh)
    shutil.copytree(engine / "data", fresh / "data")
    shutil.copytree(source / "third_party" / "fonts", fresh / "fonts")
    shutil.copytree(source / "gfootball" / "scenarios", fresh / "scenarios", ignore=shutil.ignore_patterns("tests"))
    shutil.copy(library, fresh / "_gameplayfootball.so")
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


def main(words: Sequence[str] | None = None) -> int:
    """Build and install, unless the engine is installed already; return the exit code."""
    parser = argparse.ArgumentParser(prog="make football", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once")
    jobs = parser.parse_args(words).jobs
    found = importlib.util.find_spec("gfootball_engine")
    if found is not None:
        print(f"football: the engine is installed already: {found.origin}")
        return 0
    folder = Path(sys.prefix, "football-build")
    try:
        require_system()
        require_python()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        print("football: fetching gfootball 2.10.2", flush=True)
        source = download(folder)
        print(f"football: compiling, some eight minutes of one core (jobs: {jobs})", flush=True)
        target = install(source, build(source, jobs), Path(sysconfig.get_path("platlib")))
        _run([sys.executable, "-c", "import gfootball_engine"])
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shutil.rmtree(folder)
    print(f"football: the engine is installed in {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
