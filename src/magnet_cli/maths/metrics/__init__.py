"""Metrics of two sets of features, each with its replicas for the jackknife.

Owns the mathematics, in numpy and scikit-learn. Knows nothing of images, networks or files.

Every metric takes points in groups (`intervals.groups`), and gives its value on all of them and, for each group, its
value without that group on either side.
"""
