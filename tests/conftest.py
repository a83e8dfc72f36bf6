"""Hypothesis profiles: `dev` is quick, `ci` looks harder. `--hypothesis-profile` chooses one."""

import os

from hypothesis import settings

settings.register_profile("dev", max_examples=20, deadline=None, derandomize=False)
settings.register_profile(
    "ci", max_examples=100, deadline=None, derandomize=False, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")
