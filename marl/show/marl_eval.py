"""Test results in the layout that the package marl-eval reads (Gorsane et al. 2022, "Towards a standardised performance
evaluation protocol for cooperative MARL"): environment, task, algorithm, run, then what each test measured."""

from __future__ import annotations

from typing import Any

from marl.show.gather import Run, Tasks


def document(tasks: Tasks) -> dict[str, Any]:
    """Return the tests of all runs: ``{environment: {task: {algorithm: {seed_K: {step_I: {"step_count": steps, metric:
    [value]}, ..., "absolute_metrics": {metric: [value]}}}}}}``.

    A metric is a mean over the episodes of a test, of which run folders keep no more, in a list of one.
    ``absolute_metrics`` is a run's final test, which has more episodes; it tests the team at the end of training, where
    the paper tests the best one of the training.
    """
    found: dict[str, Any] = {}
    for task, groups in tasks.items():
        environment, _, name = task.partition("-")
        held = found.setdefault(environment, {}).setdefault(name or environment, {})
        for label, runs in groups.items():
            held[label] = {f"seed_{run.seed}": _run(run) for run in runs}
    return found


def _run(run: Run) -> dict[str, Any]:
    """Return the tests of one run, the final one apart."""
    tests = [(int(row["env_steps"]), bool(row.get("final")), _metrics(row)) for row in run.rows]
    tests = [test for test in tests if test[2]]
    along = [test for test in tests if not test[1]] or tests
    steps = {f"step_{i}": {"step_count": step, **metrics} for i, (step, _, metrics) in enumerate(along)}
    return {**steps, "absolute_metrics": tests[-1][2]}


def _metrics(row: dict[str, Any]) -> dict[str, list[float]]:
    """Return the means of a test by their short names."""
    return {
        key.removeprefix("eval/"): [float(value)]
        for key, value in row.items()
        if key.startswith("eval/") and not key.endswith(("_low", "_high")) and value is not None
    }


def uneven(tasks: Tasks) -> str:
    """Return what marl-eval would refuse, in one line, or nothing: within an environment it wants all algorithms on all
    tasks, with equally many runs and equally many tests each."""
    for environment, held in document(tasks).items():
        if len({frozenset(algorithms) for algorithms in held.values()}) > 1:
            return f"tasks of {environment} have runs of different algorithms"
        runs = [seeds for algorithms in held.values() for seeds in algorithms.values()]
        for what, counts in {
            "runs": {len(seeds) for seeds in runs},
            "tests": {len(tests) - 1 for seeds in runs for tests in seeds.values()},
        }.items():
            if len(counts) > 1:
                return f"{environment} has different numbers of {what}: {', '.join(map(str, sorted(counts)))}"
    return ""
