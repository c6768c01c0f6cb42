"""VDFD: variational data-free knowledge distillation for continual learning, image classification."""
