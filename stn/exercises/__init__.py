"""Answers to the chapters' exercises, checked: `check("02-1", answer)`."""

from stn.exercises.registry import Wrong, check, exercise, expect, expect_close, names

__all__ = ["Wrong", "check", "exercise", "expect", "expect_close", "names"]
