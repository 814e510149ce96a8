"""Metrics of two sets of features, with the replicas that the jackknife needs; in numpy and scikit-learn.

Every metric takes points that are divided into groups (`intervals.groups`), and returns its value on all points and,
for each group, its value without that group on both sides.
"""
