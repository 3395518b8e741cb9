"""How fast a network's tiles and strips are on this machine, measured beforehand."""
