"""Speed as ratios in one run against the literal formulas. Run by hand or by `make bench`; never part of the tests."""
