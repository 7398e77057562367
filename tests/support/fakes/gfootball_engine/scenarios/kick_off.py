"""Nobody on the right; who plays left depends on the number of the episode, as in 5_vs_5."""

from . import Team, e_PlayerRole_CM, e_PlayerRole_GK


def build_scenario(builder):
    builder.ScenarioConfig().deterministic = False
    builder.SetTeam(Team.e_Left)
    builder.AddPlayer(-1.0, 0.0, e_PlayerRole_GK, controllable=False)
    builder.AddPlayer(-0.1 * (1 + builder.EpisodeNumber() % 2), 0.02, e_PlayerRole_CM)
