"""CDL-Prompt and its successors: prompt-based continual learning of a small ViT under a larger one."""
