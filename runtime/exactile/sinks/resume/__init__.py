"""What an early end leaves, and how a run resumes: journal, restoration, safekeeping."""
