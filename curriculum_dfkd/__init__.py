"""CuDFKD and the data-free distillation methods it is compared with."""
