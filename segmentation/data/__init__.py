"""Data of the segmentation protocols: sources, label maps, choice of images, transforms, loader."""
