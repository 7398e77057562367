"""Test results in the layout that the package marl-eval reads (Gorsane et al. 2022, "Towards a standardised performance
evaluation protocol for cooperative MARL"): environment, task, algorithm, run, then what each test measured."""

from __future__ import annotations

from typing import Any

from marl.show.gather import Run, Tasks


def document(tasks: Tasks) -> dict[str, Any]:
    """Return the tests of all runs: ``{environment: {task: {algorithm: {seed_K: {step_I: {"step_count": steps, metric:
    [value]}, ..., "absolute_metrics": {metric: [value]}}}}}}``.

    A metric is a list of one value, the mean over the episodes of a test: run folders keep no more than that.
    ``absolute_metrics`` is a run's final test, which has more episodes; it tests the team at the end of training,
    whereas the paper tests the best one of the training.

    Within an environment marl-eval looks up the runs, tests and metrics of its first algorithm on its first task in all
    others. So metrics are those that every test has, and where algorithms differ in their seeds runs are called
    ``run_K``, in the order of seeds. It refuses commas in names of algorithms: they become semicolons.
    """
    found: dict[str, Any] = {}
    for task, groups in tasks.items():
        environment, _, name = task.partition("-")
        held = found.setdefault(environment, {}).setdefault(name or environment, {})
        for label, runs in groups.items():
            held[label.replace(",", ";")] = {f"seed_{run.seed}": _run(run) for run in runs}
    return {environment: _aligned(held) for environment, held in found.items()}


def _aligned(held: dict[str, Any]) -> dict[str, Any]:
    """Return the tasks of an environment with the same metrics in all tests, and the same names of runs."""
    groups = [runs for algorithms in held.values() for runs in algorithms.values()]
    tests = [test for runs in groups for run in runs.values() for test in run.values()]
    common = {"step_count"}.union(set.intersection(*(set(test) for test in tests)))
    same = len({frozenset(runs) for runs in groups}) == 1

    def cut(run: dict[str, Any]) -> dict[str, Any]:
        return {step: {key: test[key] for key in test if key in common} for step, test in run.items()}

    return {
        task: {
            label: {name if same else f"run_{i}": cut(run) for i, (name, run) in enumerate(runs.items())}
            for label, runs in algorithms.items()
        }
        for task, algorithms in held.items()
    }


def _run(run: Run) -> dict[str, Any]:
    """Return the tests of one run, and the final one, or else the last, as ``absolute_metrics``."""
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
    tasks, with equally many runs and equally many tests each. It reads all names in lower case."""
    for environment, held in document(tasks).items():
        if len({frozenset(algorithms) for algorithms in held.values()}) > 1:
            return f"tasks of {environment} have runs of different algorithms"
        for names in (held, *held.values()):
            if len({name.lower() for name in names}) < len(names):
                return f"{environment} has names that differ in case alone: {', '.join(sorted(names))}"
        runs = [seeds for algorithms in held.values() for seeds in algorithms.values()]
        for what, counts in {
            "runs": {len(seeds) for seeds in runs},
            "tests": {len(tests) - 1 for seeds in runs for tests in seeds.values()},
        }.items():
            if len(counts) > 1:
                return f"{environment} has different numbers of {what}: {', '.join(map(str, sorted(counts)))}"
    return ""
