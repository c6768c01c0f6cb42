"""The method: low-rank importance, hypermodel, regulariser, learners."""
