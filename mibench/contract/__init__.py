"""The contract checks by family, and the toy world that they run in; `mibench.testing` is their face."""
