"""As the other one, but the engine does not forget the match before."""

from . import academy_3_vs_1_with_keeper


def build_scenario(builder):
    academy_3_vs_1_with_keeper.build_scenario(builder)
    builder.config().left_team_difficulty = 1
