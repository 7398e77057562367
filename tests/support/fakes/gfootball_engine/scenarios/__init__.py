"""Scenario files of the stand-in; they begin as the package's own do."""

import gfootball_engine as libgame

e_PlayerRole_GK = libgame.e_PlayerRole.e_PlayerRole_GK
e_PlayerRole_CM = libgame.e_PlayerRole.e_PlayerRole_CM
Team = libgame.e_Team
