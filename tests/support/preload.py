"""Everything that scripts import, for processes that are forked from the one that imports this."""

import gc
import importlib
import pkgutil

import matplotlib
import torch

import marl
from marl.run import resume
from marl.run.compose import compose, register_configs
from tests.support.composing import compose_quickly

matplotlib.use("agg")
resume.git_commit()  # which is asked once in a process
torch.set_num_threads(1)
compose_quickly()
register_configs()
compose("env=toy/corridor")  # warms Hydra's parsers, and reads files
compose("runs=team", config="robustness")
for package in ("marl", "algos", "attacks"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
for name in (
    "scripts.main",
    "envs.toys.games",
    "envs.skirmish.single",
    "tests.support.helpers",
    "matplotlib.pyplot",
    "marl.library",
    "scipy.special",
):
    importlib.import_module(name)
assert marl
gc.collect()
gc.freeze()  # collections in a child would touch, and so copy, every page that it shares
