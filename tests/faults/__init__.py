"""Faults against the whole server: real processes on a real control plane, hurt on purpose, looked at from outside."""
