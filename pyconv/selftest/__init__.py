"""The self-test: ``python -m pyconv selftest`` checks an installation on the machine where it is used.

The tests of the repository check more, and need the repository. This needs NumPy, and takes seconds.
"""
