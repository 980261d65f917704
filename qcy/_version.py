"""The version, where code and metadata both find it."""

VERSION = "0.1.0"
