"""Built-in defenses. Sources lie in defenses/ of a checkout; a wheel carries them here."""

from mibench._families import family_path

__path__ = family_path(__path__, "defenses")
