"""Maps that are kept between passes: in memory, or in scratch files where they do not fit."""
