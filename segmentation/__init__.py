"""Continual semantic segmentation on DeepLabV3: PLOP, RCIL, their baselines, and VDFD."""
