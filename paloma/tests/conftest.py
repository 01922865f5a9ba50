"""Properties are tested however long an example takes."""

from hypothesis import settings

settings.register_profile("any time", deadline=None)  # a busy machine is no failure
settings.load_profile("any time")
