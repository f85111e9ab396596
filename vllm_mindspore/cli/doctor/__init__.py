"""What the checks of `check-env` are made of: what they find, what they look at, and how the findings are told."""
