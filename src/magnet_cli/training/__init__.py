"""Train generators."""
