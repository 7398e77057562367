"""Tests of ``marl.show.report``."""
