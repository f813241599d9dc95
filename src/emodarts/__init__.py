"""emodarts."""
