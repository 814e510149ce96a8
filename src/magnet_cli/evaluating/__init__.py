"""Judge samples: metrics, attributes, sweeps."""
