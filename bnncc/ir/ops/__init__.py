"""Every operation of the IR, by duty: elementwise, linear, shape, kernels (PACKED)."""
