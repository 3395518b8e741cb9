"""Support for exporters of other frameworks: replacements of operators, and silenced logs."""
