"""Loss functions that more than one paper uses."""
