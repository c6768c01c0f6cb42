"""Image sets, class orders, task splits and transforms of this paper's experiments."""
