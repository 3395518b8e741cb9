"""Sinks that write tiles: pyramids, compression in threads, a journal for interrupted runs."""
