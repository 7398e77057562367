"""Core of the framework: types, networks, learner, collection, training loop.

It knows no algorithm, attack or simulator by name.
"""
