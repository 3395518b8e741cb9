"""Networks of other people's packages: which are tileable, why others are not, and whether tiles equal one pass."""
