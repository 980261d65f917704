"""The generic tensor."""
