"""What `tinyalex data check` finds in a data set, and the words for it."""
