"""Where training images come from without data: generators, image optimisation, contrastive inversion."""
