"""Image data: opening data sets, splitting them into tasks, transforming and loading them.

datasets.py (what is on disk) -> splits.py (which images belong to a task) -> transforms.py (what a batch goes
through) -> loader.py (in which order, resumable). prepare.py puts archives into the places datasets.py reads.
"""
