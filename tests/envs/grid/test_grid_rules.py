"""The rules of the grid games, by hand: pushing, formations, hunting, endings; scripted teams solve each."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch

from envs.grid.staghunt import StagHunt
from marl.core.types import Step
from tests.support.grid_games import hunt, push, spread

STAY, RIGHT, LEFT, UP, DOWN, CATCH = range(6)
WAYS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
Cell = tuple[int, int]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def walk(env, *joint: list[int]) -> Step:
    for actions in joint:
        step = env.step(torch.tensor([actions]))
    return step


def placed(env, cells: list[Cell]):
    env.reset()
    env.place(cells)
    return env


# --- push ------------------------------------------------------------------------------------------------------------


def test_two_push_a_box_to_the_wall() -> None:
    env = push(1, lone_push=0.0)
    state = env.reset().state[0]
    assert (state * 10).tolist() == pytest.approx([5, 4, 5, 6, 3, 5, 7, 5, 0, 10])
    walk(env, [UP, DOWN], [RIGHT, RIGHT])
    for pushes in (1, 2, 3):
        step = walk(env, [RIGHT, RIGHT])
        assert env.cells() == [(6 + pushes, 5), (6 + pushes, 5), (3, 5), (7 + pushes, 5)]
        assert [int(step.info[k]) for k in ("pushing", "joint_pushes", "boxes_moved")] == [2, 1, 1]
        assert bool(step.terminated) == bool(step.info["won"]) == (pushes == 3) and not step.truncated
        assert float(step.reward) == (10 if pushes == 3 else 0)
    assert float(step.next.state[0, 8]) == pytest.approx(5 / 40)


def test_observation_is_the_state_the_own_number_and_offsets() -> None:
    env = placed(push(1), [(1, 2), (4, 8), (3, 5), (7, 5)])
    first, second = (env.step(torch.zeros(1, 2, dtype=torch.long)).next.obs[0] * 10).tolist()
    assert first == pytest.approx([1, 2, 4, 8, 3, 5, 7, 5, 0.25, 10, 0, 2, 3, 6, 3, 3, 6])
    assert second[10:] == pytest.approx([10, -1, -3, 3, -3, -3, -6])


def test_a_lone_push_moves_a_fifth_of_the_time_and_the_pusher_follows_only_then() -> None:
    env = push(20000)
    env.reset()
    env.step(torch.tensor([[UP, STAY]]).expand(20000, 2).contiguous())
    env.step(torch.tensor([[RIGHT, STAY]]).expand(20000, 2).contiguous())
    step = env.step(torch.tensor([[RIGHT, STAY]]).expand(20000, 2).contiguous())
    moved = step.info["boxes_moved"] == 1
    assert float(moved.float().mean()) == pytest.approx(0.2, abs=0.012)  # four standard errors
    state = (step.next.state * 10).round()
    assert (state[:, 0] == 6 + moved).all() and (state[:, 6] == 7 + moved).all()
    assert (step.info["pushing"] == 1).all() and (step.info["joint_pushes"] == 0).all()


@pytest.mark.parametrize(
    ("cells", "actions", "after", "why"),
    [
        ([(4, 5), (6, 5), (5, 5), (1, 1)], [RIGHT, LEFT], None, "they push against each other"),
        ([(4, 5), (5, 4), (5, 5), (1, 1)], [RIGHT, UP], None, "they push in different directions"),
        ([(4, 5), (6, 5), (5, 5), (1, 1)], [RIGHT, STAY], None, "the other stands in the way"),
        ([(4, 5), (6, 5), (5, 5), (1, 1)], [RIGHT, RIGHT], [(4, 5), (7, 5), (5, 5), (1, 1)], "it only now leaves"),
        ([(4, 5), (4, 5), (5, 5), (6, 5)], [RIGHT, RIGHT], None, "the other box is behind it"),
        ([(0, 5), (10, 0), (5, 5), (1, 1)], [LEFT, DOWN], None, "the wall stops agents"),
        ([(4, 5), (6, 5), (5, 5), (6, 6)], [RIGHT, UP], [(5, 5), (6, 6), (6, 5), (6, 7)], "it follows its own box"),
        ([(4, 5), (6, 4), (5, 5), (1, 1)], [RIGHT, UP], [(5, 5), (6, 4), (6, 5), (1, 1)], "a box came first"),
        ([(3, 5), (7, 5), (4, 5), (6, 5)], [RIGHT, LEFT], [(4, 5), (7, 5), (5, 5), (6, 5)], "only one can enter"),
        ([(5, 5), (5, 6), (1, 1), (2, 2)], [UP, DOWN], [(5, 6), (5, 5), (1, 1), (2, 2)], "agents may pass"),
        ([(5, 5), (5, 7), (1, 1), (2, 2)], [UP, DOWN], [(5, 6), (5, 6), (1, 1), (2, 2)], "and share a cell"),
    ],
)
def test_who_moves(cells: list[Cell], actions: list[int], after: list[Cell] | None, why: str) -> None:
    env = placed(push(1, lone_push=1.0), cells)
    walk(env, actions)
    assert env.cells() == (after or cells), why


def moved(cells: list[Cell], actions: list[int], size: int, lone: bool) -> list[Cell]:
    """Return where all entities are after a step: the rules for two boxes once more, in plain Python."""
    agents, boxes = cells[:2], cells[2:]
    ahead = [(x + WAYS[a][0], y + WAYS[a][1]) for (x, y), a in zip(agents, actions, strict=True)]
    pushes = [boxes.index(cell) if cell in boxes else None for cell in ahead]

    def goal(k: int) -> Cell:
        ways = [actions[i] for i in range(2) if pushes[i] == k]
        if not ways or len(set(ways)) > 1 or (len(ways) == 1 and not lone):
            return boxes[k]
        x, y = boxes[k][0] + WAYS[ways[0]][0], boxes[k][1] + WAYS[ways[0]][1]
        if not (0 <= x < size and 0 <= y < size) or (x, y) in boxes:
            return boxes[k]
        for i in range(2):
            if agents[i] == (x, y) and (pushes[i] in (None, k) or goal(pushes[i]) == boxes[pushes[i]]):
                return boxes[k]
        return x, y

    now = [goal(0), goal(1)]
    if now[0] == now[1]:
        now[1] = boxes[1]
    inside = [0 <= x < size and 0 <= y < size for x, y in ahead]
    return [ahead[i] if inside[i] and ahead[i] not in now else agents[i] for i in range(2)] + now


@pytest.mark.parametrize("lone", [False, True])
def test_the_kernel_moves_as_the_rules_read(lone: bool) -> None:
    """Every joint action from crowded random positions in the middle of the grid."""
    env, rng = push(25, size=7, lone_push=float(lone)), np.random.default_rng(1)
    joint, steps = torch.cartesian_prod(torch.arange(5), torch.arange(5)), 0
    for _ in range(200):
        env.reset()
        first, second, box, other = (int(c) for c in rng.choice(9, 4, replace=False))
        cells = [(2 + c % 3, 2 + c // 3) for c in (first, first if rng.random() < 0.3 else second, box, other)]
        for lane in range(25):
            env.place(cells, lane)
        env.step(joint)
        expected = [moved(cells, actions, 7, lone) for actions in joint.tolist()]
        assert [env.cells(lane) for lane in range(25)] == expected
        steps += sum(now[2:] != cells[2:] for now in expected)
    assert steps > 20  # boxes did move


def test_the_clock_truncates() -> None:
    env = push(1, episode_limit=2)
    env.reset()
    assert not walk(env, [STAY, STAY]).truncated
    step = walk(env, [STAY, STAY])
    assert step.truncated and not step.terminated and step.next.alive.all()
    assert not walk(env, [STAY, STAY]).next.alive.any()


# --- spread ----------------------------------------------------------------------------------------------------------


def test_four_walk_to_the_corners() -> None:
    """From (3,3): after three steps x is 0 or 6, after three more y is, too; the sixth step wins."""
    env = spread(1)
    assert (env.reset().obs[0, :, :2] * 7).tolist() == [[3, 3]] * 4
    for t in range(6):
        step = walk(env, [LEFT, RIGHT, LEFT, RIGHT] if t < 3 else [DOWN, DOWN, UP, UP])
        assert bool(step.terminated) == bool(step.info["won"]) == (float(step.reward) == 1) == (t == 5)
    assert env.cells() == [(0, 0), (6, 0), (0, 6), (6, 6)]
    assert step.next.obs[0, 3].tolist() == pytest.approx([6 / 7, 6 / 7, 6 / 30])
    assert step.next.state[0].tolist() == pytest.approx([0, 0, 6 / 7, 0, 0, 6 / 7, 6 / 7, 6 / 7, 6 / 30])


def test_one_pair_too_close_is_not_enough_and_walls_stop() -> None:
    step = walk(placed(spread(1), [(0, 0), (6, 0), (0, 6), (6, 5)]), [LEFT, STAY, STAY, STAY])
    assert not step.terminated and float(step.reward) == 0
    assert (step.next.state[0, :2]).tolist() == [0, 0]


def test_anywhere_draws_one_cell_for_all_of_a_lane() -> None:
    env = spread(400, size=3, n_agents=2, distance=2, start="anywhere")
    cells = (env.reset().obs[..., :2] * 2).long()  # [B, n, 2]
    assert torch.equal(cells[:, 0], cells[:, 1])
    seen = (cells[:, 0, 1] * 3 + cells[:, 0, 0]).bincount(minlength=9)
    assert 20 < seen.min() and seen.max() < 75  # 44 each, deviation 6.3
    assert not torch.equal((env.reset().obs[..., :2] * 2).long(), cells)


def test_formations_are_numbered_up_to_shifts_and_names() -> None:
    """Cells (1,2) and (4,3): positions 17 · 64 + 28; shifted to (0,0) and (3,1), so formation 0 · 64 + 11."""
    env = spread(4, n_agents=2)
    env.reset()
    for lane, cells in enumerate([[(1, 2), (4, 3)], [(4, 3), (1, 2)], [(3, 6), (6, 7)], [(4, 2), (1, 3)]]):
        env.place(cells, lane)
    info = env.step(torch.zeros(4, 2, dtype=torch.long)).info
    assert info["positions"].tolist()[0] == 17 * 64 + 28 and len(info["positions"].unique()) == 4
    assert info["formation"].tolist() == [11, 11, 11, 3 * 64 + 8]


def test_sight_ends_at_its_edge() -> None:
    env = placed(spread(1, n_agents=3, sight=2), [(3, 3), (5, 2), (3, 6)])
    obs = walk(env, [STAY, STAY, STAY]).next.obs[0]
    assert obs[0, 3:].tolist() == [1, 1, -0.5, 0, 0, 0]
    assert obs[1, 3:].tolist() == [1, -1, 0.5, 0, 0, 0]
    assert obs[2, 3:].tolist() == [0, 0, 0, 0, 0, 0]


# --- hunt ------------------------------------------------------------------------------------------------------------

HUNTERS = [(1, 1), (3, 1), (5, 5), (5, 4)]


def test_two_catch_a_prey_and_leave_with_it() -> None:
    env = placed(hunt(1), [*HUNTERS, (2, 1), (0, 5)])
    step = walk(env, [CATCH, CATCH, STAY, STAY])
    assert float(step.reward) == 10 and step.info["captures"].tolist() == [1] and not step.terminated
    assert step.next.alive.tolist() == [[False, False, True, True]] and env.cells()[4] is None
    assert not step.next.obs[0, :2].any() and step.next.obs[0, 2:].any()
    assert step.next.avail[0, 0].tolist() == [True] + 5 * [False]
    state = dict(zip(env.spec.state_names, step.next.state[0].tolist(), strict=True))
    assert [state[f"{who} present"] for who in ("predator 1", "predator 2", "prey 0", "prey 1")] == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"lane 0, agent 1: action 5 is not available; available are 0 \(stay\)"):
        walk(env, [STAY, CATCH, STAY, STAY])


def test_catching_alone_costs_a_penalty_for_each_prey() -> None:
    step = walk(placed(hunt(1), [*HUNTERS, (2, 1), (0, 5)]), [CATCH, STAY, STAY, STAY])
    assert float(step.reward) == -2 and step.info["failed_catches"].tolist() == [1] and step.next.alive.all()
    step = walk(placed(hunt(1, penalty=1.5), [*HUNTERS, (2, 1), (1, 2)]), [CATCH, STAY, STAY, STAY])
    assert float(step.reward) == -3 and step.info["failed_catches"].tolist() == [2]
    step = walk(placed(hunt(1, capture_needs=3), [*HUNTERS, (2, 1), (0, 5)]), [CATCH, CATCH, STAY, STAY])
    assert float(step.reward) == -2 and step.info["captures"].tolist() == [0]


def test_catchers_stay_if_so_chosen() -> None:
    step = walk(placed(hunt(1, catchers_leave=False), [*HUNTERS, (2, 1), (0, 5)]), [CATCH, CATCH, STAY, STAY])
    assert float(step.reward) == 10 and step.next.alive.all()


def test_what_is_available_and_seen() -> None:
    env = placed(hunt(1, prey_rest=1.0, sight=1), [(0, 0), (1, 1), (5, 5), (4, 3), (0, 1), (3, 3)])
    now = walk(env, [STAY, STAY, STAY, STAY]).next
    assert now.avail[0, 0].tolist() == [True, True, False, True, False, True]  # the corner; a prey above
    assert now.avail[0, 2].tolist() == [True, False, True, False, True, False]
    seen = [name for name, there in zip(env.spec.obs_names, now.obs[0, 0].tolist(), strict=True) if there]
    assert seen == ["predator at +0,+0", "prey at +0,+1", "predator at +1,+1"]


def test_cells_are_not_shared_and_a_prey_that_is_shut_in_rests() -> None:
    env = hunt(200, prey_rest=1.0)
    env.reset()
    for lane in range(200):
        env.place([(1, 1), (3, 1), (2, 2), (2, 5), (0, 5), (5, 5)], lane)
    env.step(torch.tensor([[RIGHT, LEFT, DOWN, STAY]]).expand(200, 4).contiguous())
    entered = [[env.cells(lane)[i] == (2, 1) for i in range(3)] for lane in range(200)]
    assert all(sum(lane) == 1 for lane in entered)
    assert all(40 < count < 95 for count in np.sum(entered, 0))  # each goes first in a third of the lanes
    env = placed(hunt(1), [(1, 0), (0, 1), (4, 5), (5, 4), (0, 0), (5, 5)])
    for _ in range(5):
        walk(env, [STAY] * 4)
    assert env.cells()[4:] == [(0, 0), (5, 5)]


def test_prey_walk_to_every_free_neighbour() -> None:
    env = hunt(300)
    env.reset()
    for lane in range(300):
        env.place([(1, 2), (5, 5), (5, 4), (5, 3), (2, 2), (0, 0)], lane)
    env.step(torch.zeros(300, 4, dtype=torch.long))
    went = [env.cells(lane)[4] for lane in range(300)]
    assert {cell: 60 < went.count(cell) < 140 for cell in set(went)} == {(3, 2): True, (2, 3): True, (2, 1): True}


def test_endings() -> None:
    """Catching all prey wins, as does the last possible catch; if hunters are wasted on one prey, it ends without a
    win."""
    both = placed(hunt(1), [(1, 1), (3, 1), (1, 4), (3, 4), (2, 1), (2, 4)])
    step = walk(both, [CATCH] * 4)
    assert float(step.reward) == 20 and step.terminated and step.info["won"]
    spare = placed(hunt(1, n_prey=3), [(1, 1), (3, 1), (1, 4), (3, 4), (2, 1), (2, 4), (5, 5)])
    step = walk(spare, [CATCH] * 4)
    assert step.terminated and step.info["won"]
    wasted = placed(hunt(1), [(1, 1), (3, 1), (2, 0), (2, 2), (2, 1), (5, 5)])
    step = walk(wasted, [CATCH] * 4)
    assert float(step.reward) == 10 and step.terminated and not step.info["won"]
    idle = hunt(1, episode_limit=1)
    idle.reset()
    step = walk(idle, [STAY] * 4)
    assert step.truncated and not step.terminated


def hunters(env: StagHunt, lane: int, rng: np.random.Generator) -> list[int]:
    """Walk towards the first prey, wait two cells from it, because it always moves, and catch once two are next to
    it."""
    cells, n = env.cells(lane), env.spec.n_agents
    prey = next((cell for cell in cells[n:] if cell is not None), (0, 0))
    gaps = [(prey[0] - x, prey[1] - y) for x, y in cells[:n]]
    near = [abs(dx) + abs(dy) == 1 for dx, dy in gaps]
    actions = []
    for (dx, dy), beside in zip(gaps, near, strict=True):
        along_x = RIGHT if dx > 0 else LEFT
        along_y = UP if dy > 0 else DOWN
        if beside:
            actions.append(CATCH if sum(near) >= 2 else STAY)
        elif abs(dx) + abs(dy) == 2:
            actions.append(STAY)
        elif dx == 0 or dy == 0:
            actions.append(along_y if dx == 0 else along_x)
        else:
            actions.append(along_x if rng.random() < 0.5 else along_y)
    return actions


def test_hunters_who_wait_for_each_other_catch_without_penalty() -> None:
    env, rng = hunt(20, episode_limit=200, catchers_leave=False), np.random.default_rng(0)
    obs, won, earned, failed = env.reset(), torch.zeros(20, dtype=torch.bool), torch.zeros(20), 0
    for _ in range(200):
        actions = torch.tensor([hunters(env, lane, rng) for lane in range(20)])
        legal = obs.avail.gather(2, actions[..., None])[..., 0]
        step = env.step(actions * legal)
        obs, won, earned = step.next, won | step.info["won"], earned + step.reward
        failed += int(step.info["failed_catches"].sum())
    assert won.all() and earned.mean() > 19 and failed <= 2  # an agent between two prey, now and then
