"""RCIL: representation compensation (two branches, merged after every step) and its freezing rules."""
