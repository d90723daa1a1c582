"""mibench: every model inversion attack against every defense."""
