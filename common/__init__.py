"""What at least two of the papers share: backbones, losses, metrics, data and the run machinery. Knows no paper."""
