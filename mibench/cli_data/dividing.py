"""`mibench data split`: who is private, the attacker's and the defender's, frozen in a file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Choice(StrEnum):
    """Which people become private."""

    random = "random"
    most = "most"


PrivateSet = Annotated[Path, typer.Argument(metavar="DIR", help="Prepared set of the private people.")]
Private = Annotated[int, typer.Option(min=2, help="People that the victim knows.")]
Public = Annotated[
    int, typer.Option(min=0, help="People of the attacker's public images; 0 takes what is left.")
]
Defender = Annotated[
    int, typer.Option(min=0, help="People of the defender's public images; 0 takes what is left.")
]
PublicSet = Annotated[
    Path | None, typer.Option("--public-set", metavar="DIR", help="Another set for the attacker.")
]
DefenderSet = Annotated[
    Path | None,
    typer.Option("--defender-set", metavar="DIR", help="Another for the defender. Default: --public-set."),
]
TestImages = Annotated[
    int, typer.Option(min=0, help="Images of each private person to test on; 0 takes --test-fraction.")
]
TestFraction = Annotated[float, typer.Option(help="Share of each private person's images.")]
MinImages = Annotated[int, typer.Option(min=0, help="Images that a private person needs.")]
MinDefenderImages = Annotated[int, typer.Option(min=1, help="Images that a person of the defender needs.")]
Choose = Annotated[Choice, typer.Option(help="Private people by the seed, or those with most images.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every draw.")]
Name = Annotated[str, typer.Option(help="The file is DIR/splits/NAME.json.")]
To = Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Another place for it.")]
Force = Annotated[bool, typer.Option("--force", help="Replace another split that lies there.")]


def split(
    private_set: PrivateSet,
    *,
    private: Private,
    public: Public = 0,
    defender: Defender = 0,
    public_set: PublicSet = None,
    defender_set: DefenderSet = None,
    test_images: TestImages = 0,
    test_fraction: TestFraction = 0.2,
    min_images: MinImages = 0,
    min_defender_images: MinDefenderImages = 1,
    choose: Choose = Choice.random,
    seed: Seed = 0,
    name: Name = "default",
    to: To = None,
    force: Force = False,
) -> None:
    """Divide prepared sets into private people and two halves of public ones."""
    from mibench.data.dividing import Division, divide, write_split
    from mibench.data.prepared import PreparedSet

    division = Division(
        private=private,
        public=public,
        defender=defender,
        test_images=test_images,
        test_fraction=test_fraction,
        min_images=min_images,
        min_defender_images=min_defender_images,
        choose=choose.value,
        seed=seed,
    )
    mine = PreparedSet(private_set)
    theirs = mine if public_set is None else PreparedSet(public_set)
    own = theirs if defender_set is None else PreparedSet(defender_set)
    file = to or private_set / "splits" / f"{name}.json"
    made = divide(division, mine, theirs, own, file=file)
    write_split(made, file, force=force)
    for part, found in made.parts.items():
        typer.echo(
            f"{part:9} {found.set_name}: {len(found.people)} people, {len(found.train)} images"
            + (f" to train and {len(found.test)} to test" if found.test else "")
        )
    typer.echo(f"{file}\nNext: `mibench data verify {private_set}`, then `mibench run SUITE --split {file}`.")
