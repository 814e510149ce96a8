"""The precisions in which products are made, and the rounding error of each."""

import torch

# Singular values below this share of the first of their row are rounding error (docs/method.md#rank-floor).
RANK_FLOOR = {"float64": 1e-12, "float32": 1e-5, "tf32": 1e-3, "bfloat16": 1e-2}
PRECISIONS = {"float64": torch.float64, "float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
