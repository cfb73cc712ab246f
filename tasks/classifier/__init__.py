"""Classifiers of quality: trained on examples, kept as fastText files, asked for scores."""
