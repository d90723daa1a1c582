"""Kills `mibench run smoke` over and over: cd tests && python -m chaos --out FOLDER.

Run within `tests`, because that name itself is one that other packages install.
"""
