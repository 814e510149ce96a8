"""Mathematics in torch, numpy and scipy: Jacobians, metrics, priors. No files, no generators."""
