"""Threads that can be waited for after Ctrl-C, and a few that share many tasks."""
