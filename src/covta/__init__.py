"""covta: hardware/software co-design around VTA, the Versatile Tensor Accelerator."""
