"""Benchmarks: figures with their targets, printed and kept, never a test that passes or fails by the clock."""
