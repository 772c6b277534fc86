"""The version, for the build and for the installed package alike."""

VERSION = "0.1.0"
