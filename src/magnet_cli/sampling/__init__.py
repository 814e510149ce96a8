"""Choose a volume, draw from it, temper, render."""
