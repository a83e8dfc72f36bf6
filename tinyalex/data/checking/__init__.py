"""Findings of `tinyalex data check` in a data set, and the words for them."""
