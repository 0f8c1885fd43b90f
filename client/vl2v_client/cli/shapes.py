"""`vl2v-client shapes`: make the procedural data set."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import show_notice
from vl2v_client.core.errors import DataError
from vl2v_client.data.shapes import write_shapes
from vl2v_client.data.shapes.drawing_styles import DEVELOPMENT_STYLES, STYLES


def shapes(
    root: Annotated[Path, Parameter(help="Folder to write; what is there already is kept.")],
    /,
    *,
    seed: Annotated[int, Parameter(help="Number of the data set.")] = 0,
    images_per_class: Annotated[int, Parameter(validator=Number(gte=2), help="Images per style and class.")] = 40,
    size: Annotated[int, Parameter(validator=Number(gte=16), help="Width and height in pixels.")] = 64,
    style: Annotated[
        tuple[str, ...],
        Parameter(
            show_default=False,
            choices=STYLES + DEVELOPMENT_STYLES,
            help="A style; repeatable; the first four if left out.",
        ),
    ] = (),
) -> None:
    """Draw the `shapes` data set: ten classes in four styles, as root/style/class/NNNN.png.

    Raises:
        DataError: The folder cannot be written, or holds another data set.
    """
    styles = style or STYLES
    with bars(quiet=False) as progress:
        try:
            write_shapes(
                root,
                seed=seed,
                styles=styles,
                images_per_class=images_per_class,
                size=size,
                progress=lambda done, total: progress("draw", done, total),
            )
        except (ValueError, OSError) as error:
            raise DataError(f"{error}") from error
    show_notice(f"{root}: {', '.join(styles)}")
