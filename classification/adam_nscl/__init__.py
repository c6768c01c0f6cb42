"""Adam-NSCL: train later tasks in the approximate null space of what earlier tasks feed to each convolution."""
