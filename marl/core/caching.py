"""Numba's ``njit``, with a place for compiled code found before it is first used; import it from here."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile

import numba
from numba import njit

from marl.core.types import ConfigError

__all__ = ["njit"]

log = logging.getLogger(__name__)


def ensure_cache() -> None:
    """Give numba a temporary folder for compiled code, with a warning, if it can write neither next to the sources nor
    in the user's home. Raise ConfigError if no temporary folder can be made either."""

    def probe() -> None:
        """Do nothing; numba looks for a place as soon as a function asks to be cached."""

    try:
        njit(cache=True)(probe)
        return
    except RuntimeError:  # no such place
        pass
    hint = "set NUMBA_CACHE_DIR to a folder that can be written"
    try:
        folder = tempfile.mkdtemp(prefix="compiled-")
    except OSError as error:
        raise ConfigError(f"compiled code can be kept nowhere; {hint}") from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = folder  # for this process and those that it starts
    numba.config.reload_config()
    log.warning("compiled code is kept in %s and forgotten at the end; to keep it, %s", folder, hint)


ensure_cache()
