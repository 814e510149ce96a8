"""The singular values of a torch function's Jacobian at a batch of inputs.

Owns the mathematics: products, solvers, and how a solver is chosen. Knows nothing of generators, files or latents'
distribution; works on any function that torch.func can differentiate.
"""

import torch

# A singular value below this share of its row's largest is rounding of the products, not signal (METHOD: rank floor).
RANK_FLOOR = {"float64": 1e-12, "float32": 1e-5, "tf32": 1e-3, "bfloat16": 1e-2}
PRECISIONS = {"float64": torch.float64, "float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}
