"""The process pool: deaths are reported, all other workers end, nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from envs.adapters.pool import Pool, WorkerError
from envs.base import check_env
from marl.core.types import ConfigError
from tests.support.games import Dice, MakeBomb, unpicklable

STEP = torch.zeros(3, 1, dtype=torch.long)


def bombs(n_envs=3, seed=0, workers=2, timeout=600.0, **kwargs):
    return Pool(MakeBomb(**kwargs), n_envs=n_envs, seed=seed, workers=workers, timeout=timeout)


def pids(pool):
    return [handle.process.pid for handle in pool._handles]


def gone(pid):
    """Return whether there is no such process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()


def shared_memory():
    """Return the names of the pools' memory that are visible to others or still open here."""
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    open_here = [os.readlink(link) for link in links if os.path.islink(link)]
    return [name for name in [*os.listdir("/dev/shm"), *open_here] if "lanes" in name]


def test_contract():
    check_env(lambda n, s: bombs(n, s))


def test_lanes_are_shared_out_and_close_leaves_nothing():
    pool = bombs()
    workers = pids(pool)
    assert [handle.lanes for handle in pool._handles] == [[0, 1], [2]]
    obs = pool.reset()
    kept = obs.obs
    step = pool.step(STEP)
    assert step.next.obs.flatten().tolist() == [1, 1, 1] and kept.data_ptr() == step.next.obs.data_ptr()  # no copies
    pool.close()
    pool.close()
    assert all(map(gone, workers)) and kept.flatten().tolist() == [1, 1, 1]  # the memory lives as long as its tensors
    with pytest.raises(RuntimeError, match="closed"):
        pool.step(STEP)
    del pool, obs, step, kept
    gc.collect()
    assert not shared_memory()


def test_forgotten_pool_is_collected():
    pool = bombs()
    workers = pids(pool)
    del pool
    gc.collect()
    assert all(map(gone, workers)) and not shared_memory()


DEATHS_OF_GAMES = {
    "raise": "ZeroDivisionError: the bomb went off (in step 2 of the episode)",
    "kill": "the process was killed by SIGKILL (out of memory?)",
    "exit": "SystemExit: 3 (in step 2 of the episode)",
}


@pytest.mark.parametrize("way", DEATHS_OF_GAMES)
def test_a_game_that_dies_loses_its_worker_s_episodes_and_is_built_anew(way, tmp_path, caplog):
    pool = bombs(workers=2, way=way, lane_file=str(tmp_path / "first"))
    assert sorted(len(handle.lanes) for handle in pool._handles) == [1, 2]
    workers = pids(pool)
    pool.reset()
    assert not pool.step(STEP).info["lost"].any()
    step = pool.step(STEP)
    lost = step.info["lost"].clone()
    (dead,) = [k for k, handle in enumerate(pool._handles) if lost[handle.lanes].all()]
    assert lost.nonzero().flatten().tolist() == pool._handles[dead].lanes, "and no other lane"
    assert torch.equal(step.truncated, lost) and not step.terminated.any() and torch.equal(step.reward > 0, ~lost)
    assert torch.equal(step.next.alive.all(1), ~lost) and step.next.avail.any(-1).all()
    (warning,) = [record.message for record in caplog.records]
    assert DEATHS_OF_GAMES[way] in warning and "lane" in warning and gone(workers[dead])
    if way == "raise":
        assert "tests/support/games.py" in warning and "Traceback" in warning
    step = pool.step(STEP)
    assert torch.equal(step.info["lost"], lost) and not step.truncated.any()  # it is said until the next reset
    obs = pool.reset()
    assert obs.alive.all() and obs.obs.flatten().tolist() == [0, 0, 0]
    for t in range(1, 11):
        step = pool.step(STEP)
        assert step.next.obs.flatten().tolist() == [t, t, t] and not step.info["lost"].any()
    assert step.truncated.all() and len(caplog.records) == 1
    workers = pids(pool)
    pool.close()
    assert all(map(gone, workers))


def test_an_episode_that_had_ended_outlives_its_worker(tmp_path):
    """Lane 0 dies in step 5, in the same process as lane 1, which terminated in step 2; in a reset too."""
    pool = bombs(n_envs=2, workers=1, way="raise", fuse=5, lane_file=str(tmp_path / "first"), others_end=2)
    pool.reset()
    ended = [pool.step(STEP[:2]).terminated.tolist() for _ in range(4)]
    assert ended == [[False, False], [False, True], [False, False], [False, False]]
    step = pool.step(STEP[:2])
    assert step.info["lost"].tolist() == [True, False] and step.truncated.tolist() == [True, False]
    assert step.next.obs.flatten().tolist() == [0, 2], "what was last seen of it stays"
    assert pool.reset(mask=torch.tensor([True, False])).alive.flatten().tolist() == [True, False]
    assert pool.step(STEP[:2]).info["lost"].tolist() == [False, False]
    pool.close()


@pytest.mark.parametrize("where", ["reset", "step"])
def test_a_game_that_dies_again_and_again_ends_the_pool(where, caplog):
    """Lane 1 plays on; what counts is whether the dead worker's lanes finish an episode."""
    pool = Pool(MakeBomb(way="raise", where=where, only=1), n_envs=2, workers=2)
    with pytest.raises(WorkerError, match=r"lane 1.* 5 times without finishing an episode.*the bomb went off") as death:
        for _ in range(5):
            pool.reset()
            for _ in range(10):
                step = pool.step(STEP[:2])
            assert step.info["lost"].tolist() == [False, True]
    assert len(str(death.value).splitlines()) == 1 and "games.py" in death.value.report
    assert len(caplog.records) == 4 and sum("Traceback" in record.message for record in caplog.records) == 1
    with pytest.raises(RuntimeError, match="closed"):
        pool.reset()


def test_deaths_are_counted_from_the_last_episode_that_ended():
    pool = bombs(n_envs=1, workers=1)
    for _ in range(7):
        pool.reset()
        os.kill(pids(pool)[0], signal.SIGKILL)
        assert pool.step(STEP[:1]).info["lost"].all()
        pool.reset()
        for _ in range(10):
            step = pool.step(STEP[:1])
        assert step.truncated.all() and not step.info["lost"].any()
    pool.close()


def test_a_death_in_a_reset_is_told_by_the_next_step(tmp_path):
    """In a reset of some lanes, the others of the dead worker are lost too."""
    pool = bombs(n_envs=2, workers=1, way="kill", where="reset", second_reset=True)
    pool.reset()
    pool.step(STEP[:2])
    obs = pool.reset(mask=torch.tensor([True, False]))
    assert obs.avail.any(-1).all() and not obs.alive.any()
    step = pool.step(STEP[:2])
    assert step.info["lost"].all() and step.truncated.all() and not step.reward.any()
    pool.close()


def test_a_broken_promise_ends_the_pool_at_once(tmp_path, caplog):
    pool = bombs(workers=3, way="mute", lane_file=str(tmp_path / "first"))
    workers = pids(pool)
    pool.reset()
    pool.step(STEP)
    with pytest.raises(WorkerError, match="left an agent without an available action") as death:
        pool.step(STEP)
    assert len(death.value.lanes) == 1 and f"lane {death.value.lanes[0]}" in str(death.value)
    assert all(map(gone, workers)) and not caplog.records


def test_lanes_of_a_killed_worker_are_named(caplog):
    pool = bombs(n_envs=5, workers=2)
    pool.reset()
    os.kill(pids(pool)[1], signal.SIGKILL)
    step = pool.step(torch.zeros(5, 1, dtype=torch.long))
    assert step.info["lost"].tolist() == [False, False, False, True, True]
    assert "lanes 3-4" in caplog.text and "killed by SIGKILL" in caplog.text
    pool.close()


def test_a_silent_worker_counts_as_dead(caplog):
    pool = bombs(n_envs=1, workers=1, way="hang", where="reset", timeout=None)
    pool.timeout = 1.0  # only now: starting the worker may take as long as it likes
    worker = pids(pool)[0]
    pool.reset()
    assert pool.step(STEP[:1]).info["lost"].all()
    assert "no answer within 1 s (env.timeout)" in caplog.text and gone(worker)
    pool.close()


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_the_time_limit_is_checked(timeout):
    with pytest.raises(ConfigError, match=rf"env.timeout={timeout} must be above 0, or null"):
        bombs(timeout=timeout)


def test_failure_to_build_is_a_config_error():
    with pytest.raises(ConfigError, match=r"built: ZeroDivisionError: the bomb went off$"):
        bombs(way="raise", where="init")
    with pytest.raises(ConfigError, match="cannot be sent to a worker process"):
        Pool(unpicklable(), n_envs=1)
    with pytest.raises(ConfigError, match="at least 1, got 0 and None"):
        Pool(MakeBomb(), n_envs=0)


def rolled(pool):
    """Return all that a pool of dice shows in one episode."""
    actions = torch.zeros(pool.n_envs, 1, dtype=torch.long)
    first = pool.reset()
    shown = [first.state.clone(), first.obs.flatten(1).clone()]
    return torch.cat([*shown, *(pool.step(actions).next.obs.flatten(1).clone() for _ in range(4))], 1)


@pytest.mark.parametrize("rebuild", [False, True])
def test_games_that_draw_from_global_generators_are_repeatable(rebuild):
    def dice(seed):
        return Pool(Dice, n_envs=3, seed=seed, workers=2, rebuild=rebuild)

    pool, same, other = dice(1), dice(1), dice(2)
    first = rolled(pool)
    assert torch.equal(first, rolled(same)) and not (first == rolled(other)).any()
    assert len(set(first.flatten().tolist())) == first.numel(), "lanes, generators and steps differ"
    state = pool.state_dict()
    second = rolled(pool)
    assert not (first[:, 1:] == second[:, 1:]).any()
    continued = dice(1)
    continued.load_state_dict(state)
    assert torch.equal(rolled(continued), second)
    for each in (pool, same, other, continued):
        each.close()


def test_signals_to_the_whole_job_leave_the_workers_alone():
    """Ctrl-C and schedulers signal every process; only the parent may react, after saving."""
    pool = bombs()
    pool.reset()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for pid in pids(pool):
            os.kill(pid, number)
    assert pool.step(STEP).next.obs.flatten().tolist() == [1, 1, 1]
    pool.close()


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
import torch  # as a training script does, and without guarding __main__: workers must not run this file
sys.path.insert(0, {root!r})
from tests.envs.adapters.test_pool import bombs, pids
pool = bombs()
pool.reset()
assert not any("libtorch" in open(f"/proc/{{pid}}/maps").read() for pid in pids(pool))
print(*pids(pool), flush=True)
time.sleep(600)
"""


def interrupt_script(tmp_path, signal_it):
    """Run a script that makes a pool, and end it; return its stderr once its workers are gone."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(root=str(Path(__file__).parents[3])))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, str(path)], start_new_session=True, **pipes)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    signal_it(process)
    _, errors = process.communicate(timeout=600)
    assert len(workers) == 2, errors
    deadline = time.monotonic() + 600
    while not all(map(gone, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(gone, workers))
    return errors


def test_ctrl_c_shows_one_traceback_and_ends_all(tmp_path):
    """The script does not close its pool: interpreter exit does."""
    errors = interrupt_script(tmp_path, lambda process: os.killpg(process.pid, signal.SIGINT))
    assert errors.count("Traceback") == 1 and "KeyboardInterrupt" in errors


def test_workers_follow_a_killed_parent(tmp_path):
    assert "Traceback" not in interrupt_script(tmp_path, lambda process: process.kill())
