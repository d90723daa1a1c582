"""Built-in attacks. Sources lie in attacks/ of a checkout; a wheel carries them here."""

from mibench._families import family_path

__path__ = family_path(__path__, "attacks")
