"""Predictions of test utterances, their scores, and comparisons of systems; no torch."""
