"""Football without its engine: what agents see, when episodes end, what they pay, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from envs.adapters.football import scene as scenes
from envs.adapters.football.draw import draw
from envs.adapters.football.referee import Referee
from envs.adapters.football.scene import Scene, about, bounds, find_agents, obs_names, read_scene, state_names, width
from tests.support.football_parts import ends, info, rules, scene

OUT = 5  # some game mode that is not NORMAL
OBS_0 = [0.5, 0.1, 0.25, -0.3, 0.01, 0.02, 0.03, -0.04, 0.5, -0.05, -0.25, 0.2, -0.01, 0.005, 0.015, -0.025,
         0.125, 0.05, 2.0, 0.05, -0.06, 0.125]  # fmt: skip
OBS_1 = [0.75, -0.2, -0.25, 0.3, 0.03, -0.04, 0.01, 0.02, 0.25, 0.25, -0.5, 0.5, -0.01, 0.005, 0.015, -0.025,
         -0.125, 0.35, 2.0, 0.05, -0.06, 0.125]  # fmt: skip
STATE = [0.5, 0.1, 0.75, -0.2, 0.01, 0.02, 0.03, -0.04, 1.0, 0.05, 0.25, 0.3, -0.01, 0.005, 0.015, -0.025,
         0.625, 0.15, 2.0, 0.05, -0.06, 0.125]  # fmt: skip


def seen(moment: Scene, scale: float = 1.0) -> tuple[list[list[float]], list[float]]:
    obs, state = np.zeros((2, 22), np.float32), np.zeros(22, np.float32)
    team = find_agents(moment, 2, "last")
    scenes.write_observations(team, moment, 2, scale, obs)
    scenes.write_state(team, moment, 2, scale, state)
    return obs.tolist(), state.tolist()


def test_observations_and_state_by_hand() -> None:
    (first, second), state = seen(read_scene(info(), 2))
    assert first == pytest.approx(OBS_0) and second == pytest.approx(OBS_1) and state == pytest.approx(STATE)


def test_a_scale_changes_directions_alone_but_not_the_height_of_the_ball() -> None:
    (first, _), state = seen(read_scene(info(), 2), scale=10.0)
    for names, scaled, plain in ((obs_names(2, 2), first, OBS_0), (state_names(2, 2), state, STATE)):
        factors = [10.0 if name.split()[-1].startswith("d") else 1.0 for name in names]
        assert scaled == pytest.approx([factor * value for factor, value in zip(factors, plain, strict=True)])


def test_a_moment_is_a_copy_with_whom_agents_control() -> None:
    moment = read_scene(info(), 3)
    assert moment.controlled == (1, 2, -1) and (moment.owner_team, moment.owner) == (0, 1)
    assert (moment.mode, moment.goals, moment.step) == (0, (0, 0), 7)


def test_agents_are_the_last_players_or_those_they_move() -> None:
    moment = scene(xs=(0.1, 0.2, 0.3), controlled=(3, 0))
    assert find_agents(moment, 2, "last")[:, 0].tolist() == [0.2, 0.3]
    assert find_agents(moment, 2, "controlled")[:, 0].tolist() == [0.3, -1.0]
    nobody = moment._replace(controlled=(1, -1))
    assert find_agents(nobody, 2, "controlled")[:, 0].tolist() == [0.1, 0.3], "who moves nobody sees as the last does"


def test_names_say_what_stands_where() -> None:
    named = dict(zip(state_names(2, 2), STATE, strict=True))
    assert (named["ally 1 x"], named["ally 1 dy"], named["enemy 0 x"], named["enemy 1 dx"]) == (0.75, -0.04, 1.0, 0.015)
    assert (named["ball z"], named["ball dz"]) == (2.0, 0.125)
    told = dict(zip(obs_names(2, 2), OBS_1, strict=True))
    assert (told["own y"], told["own dx"], told["other 0 x"], told["other 0 dy"]) == (-0.2, 0.03, -0.25, 0.02)
    assert (told["enemy 1 y"], told["enemy 0 dx"], told["ball y"]) == (0.5, -0.01, 0.35)


@pytest.mark.parametrize(("n", "m", "size"), [(3, 2, 26), (4, 3, 34), (10, 11, 90), (2, 2, 22), (4, 5, 42)])
def test_sizes_are_the_published_ones(n: int, m: int, size: int) -> None:
    assert width(n, m) == len(obs_names(n, m)) == len(state_names(n, m)) == size
    low, high = bounds(n, m, 1.0)
    assert low.shape == high.shape == (size,) and (low < high).all()


def test_about_says_whose_numbers_stand_where() -> None:
    whose = about(3, 1)  # own 0:2, others 2:6, own direction 6:8, others' 8:12
    assert whose[0, 0].nonzero()[0].tolist() == [0, 1, 6, 7]
    assert whose[1, 0].nonzero()[0].tolist() == [2, 3, 8, 9] and whose[1, 2].nonzero()[0].tolist() == [4, 5, 10, 11]
    assert not whose[:, :, 12:].any()


# ------------------------------------------------------------------------------------------------------------- ends

SAME = scene()
ENDS = {  # what the scenario and the options say, the moments, and in which of them it is over
    "nothing": (ends(), None, [SAME, SAME, SAME], None),
    "our goal": (ends(score=True), None, [SAME, scene(goals=(1, 0))], 1),
    "their goal": (ends(score=True), None, [scene(goals=(0, 1))], 0),
    "a goal where goals end nothing": (ends(), None, [scene(goals=(1, 0)), SAME], None),
    "out of play": (ends(out=True), None, [SAME, scene(mode=OUT)], 1),
    "out of play from the start": (ends(out=True), None, [scene(mode=OUT), scene(mode=OUT)], None),
    "out of play where that ends nothing": (ends(), None, [SAME, scene(mode=OUT)], None),
    "possession": (ends(possession=True), None, [scene(owner_team=0), SAME, scene(owner_team=1)], 2),
    "won back": (ends(possession=True), None, [scene(owner_team=1), SAME, scene(owner_team=0)], 2),
    "kept": (ends(possession=True), None, [scene(owner_team=0), SAME, scene(owner_team=0)], None),
    "possession where that ends nothing": (ends(), None, [scene(owner_team=0), scene(owner_team=1)], None),
    "ball behind the line": (ends(), 0.0, [SAME, scene(ball=(-0.01, 0.0))], 1),
    "agent behind the line": (ends(), 0.0, [SAME, scene(xs=(0.5, -0.01))], 1),
    "on the line; the keeper behind it does not count": (ends(), 0.0, [scene(ball=(0.0, 0.0), xs=(0.0, 0.0))], None),
    "another line": (ends(), -0.1, [scene(xs=(0.5, -0.1)), scene(xs=(0.5, -0.11))], 1),
}


def first_end(referee: Referee, said: tuple) -> int | None:
    by, _, moments, _ = said
    referee.begin(by)
    over = [referee.judge(moment).terminated for moment in moments]
    return over.index(True) if True in over else None


@pytest.mark.parametrize("name", ENDS)
def test_an_episode_ends(name: str) -> None:
    referee = Referee(rules(pos_limit=ENDS[name][1]), 2)
    assert first_end(referee, ENDS[name]) == ENDS[name][3]
    assert first_end(referee, ENDS[name]) == ENDS[name][3], "begin forgets the episode before"


class Forgetful(Referee):
    """A broken twin: it reads possession and mode of the same step instead of the one before."""

    def _is_over(self, scene: Scene) -> bool:
        self.mode, self.possession = scene.mode, scene.owner_team
        return super()._is_over(scene)


def test_a_referee_that_forgets_the_step_before_would_be_seen() -> None:
    wrong = [name for name, said in ENDS.items() if first_end(Forgetful(rules(pos_limit=said[1]), 2), said) != said[3]]
    assert wrong == ["out of play", "possession", "won back"]


def test_a_time_out_cuts_unless_it_is_said_to_be_the_end() -> None:
    for terminal in (False, True):
        referee = Referee(rules(episode_limit=2, timeout_is_terminal=terminal), 2)
        referee.begin(ends())
        assert referee.judge(SAME)[1:3] == (False, False)
        assert referee.judge(SAME)[1:3] == (terminal, not terminal)
    referee = Referee(rules(episode_limit=1), 2)
    referee.begin(ends(score=True))
    assert referee.judge(scene(goals=(1, 0)))[1:] == (True, False, True), "a goal at the limit is an end of the task"
    referee.begin(ends(duration=9))
    assert referee.judge(scene(step=9))[1:3] == (False, True), "the scenario's own clock"


# ---------------------------------------------------------------------------------------------------------- rewards


def paid(moments: list[Scene], **changed: object) -> list[float]:
    referee = Referee(rules(**changed), 2)
    referee.begin(ends(score=True))
    return [referee.judge(moment).reward for moment in moments]


def test_rewards_by_hand() -> None:
    scored, conceded = [SAME, scene(goals=(1, 0))], [SAME, scene(goals=(0, 1))]
    late = [SAME] * 4
    assert paid(scored, reward="goals") == [0, 2] and paid(conceded, reward="goals") == [0, -2]
    assert paid(scored, reward="mean") == [0, 1] and paid(conceded, reward="mean") == [0, -1]
    assert paid(scored, reward="fox") == [0, 100] and paid(conceded, reward="fox") == [0, -1]
    assert paid(late, reward="goals") == [0, 0, 0, 0] and paid(late, reward="fox") == [0, 0, 0, -1]
    assert paid(late, reward="fox", timeout_is_terminal=True) == [0, 0, 0, -1]
    on = [scene(goals=(1, 0)), scene(goals=(1, 1)), scene(goals=(2, 1))]
    assert paid(on, reward="goals") == [2, -2, 2], "changes, not scores"


def test_won_is_a_goal_in_this_step() -> None:
    referee = Referee(rules(), 2)
    referee.begin(ends())
    assert [referee.judge(scene(goals=goals)).won for goals in ((0, 0), (1, 0), (1, 0), (1, 1))] == [0, 1, 0, 0]


def at_foot(distance: float, player: int = 1, team: int = 0) -> Scene:
    return scene(ball=(1 - distance, 0.0), owner_team=team, owner=player)


def test_checkpoints_by_hand() -> None:
    """Ring k is reached within 0.99 - 0.8 / 9 k of the goal: 0.99, 0.901, 0.812, 0.723, ..., 0.19."""
    pay = {"reward": "goals", "checkpoints": True, "episode_limit": 9}
    moments = [at_foot(1.0), at_foot(0.95), at_foot(0.95), at_foot(0.8), at_foot(0.9), at_foot(0.19)]
    assert paid(moments, **pay) == pytest.approx([0, 0.1, 0, 0.2, 0, 0.7])
    assert paid([at_foot(0.95), scene(goals=(1, 0))], **pay) == pytest.approx([0.1, 2 + 0.9])
    assert paid([at_foot(0.1, team=1), at_foot(0.1, player=0), scene(ball=(0.9, 0.0))], **pay) == [0, 0, 0]
    assert paid([scene(ball=(1.0, 0.3), owner_team=0, owner=2)], **pay) == pytest.approx([0.8]), "0.3: 0.99 to 0.368"
    assert paid([at_foot(0.1)], reward="goals") == [0]


def test_a_picture_shows_ball_and_owner() -> None:
    calm, near = draw(scene(), "step 1   0 : 0"), draw(scene(ball=(0.5, 0.1), owner_team=0, owner=1), "")
    assert calm.dtype == np.uint8 and calm.shape == (265, 512, 3)
    x, y = round(26 + 230 * 1.6), round(26 + 230 * 0.42)  # (0.6, 0.0) in pixels
    assert calm[y, x].min() > 240 and near[y, x].min() < 200, "the ball is white, grass is not"
    gold = round(26 + 230 * 1.5), round(26 + 230 * 0.52) - 8  # above the first agent, at (0.5, 0.1)
    assert near[gold[1], gold[0]][2] < 110 < near[gold[1], gold[0]][0] and calm[gold[1], gold[0]][0] < 110
