"""What all tests share."""

from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None)  # a busy core is no failure
settings.load_profile("quick")
