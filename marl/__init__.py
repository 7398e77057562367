"""Core of the framework: types, networks, learner, collection, training loop. Knows no algorithm, attack or simulator by name."""
