"""Learning: networks, mixers, returns, the replay, policies and the value learner."""
