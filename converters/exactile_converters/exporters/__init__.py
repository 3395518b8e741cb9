"""What exporters of other frameworks need: other operators for a time, and silence."""
