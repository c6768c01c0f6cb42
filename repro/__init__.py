"""The audit desk: parity with the originals, published against own numbers, the runner.

It knows the subprojects only through their `experiments.toml` (see `repro.registry`) and holds no training code.
"""
