"""Metrics: pure functions and running means; accuracies in percent."""
