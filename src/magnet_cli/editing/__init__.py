"""Balance attributes, learn directions, edit latents."""
