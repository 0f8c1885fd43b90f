"""`vl2v-client export`: the student in a format that others load."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from vl2v_client.cli.console import write_json
from vl2v_client.cli.options import COMMON, OUTPUT, AsJson
from vl2v_client.cli.vendor import notify
from vl2v_client.config.run import ExportFormat


def export(
    run: Annotated[Path, Parameter(help="Folder of a `distill`, or its student folder.")],
    /,
    *,
    format_: Annotated[
        ExportFormat,
        Parameter(name="--format", group=COMMON, help="What to write; `hf` is a Hugging Face folder."),
    ],
    out: Annotated[
        Path | None, Parameter(group=COMMON, help="New folder; student-FORMAT in the run's if left out.")
    ] = None,
    images: Annotated[
        tuple[str, ...],
        Parameter(
            group=OUTPUT,
            show_default=False,
            help="Images, folders or patterns to compare on; repeatable; the run's hold-out if left out.",
        ),
    ] = (),
    as_json: AsJson = False,
) -> None:
    """Write the student for timm, the Hugging Face Hub or ONNX Runtime, and compare it with the student."""
    from vl2v_client.recipes.export import export_run

    folder = out or run / f"student-{format_}"
    agreement = export_run(run, format_, folder, images)
    if as_json:
        write_json({"folder": str(folder), "format": format_, **asdict(agreement)})
        return
    figures = f"the probabilities differ by {agreement.largest:.1e} at most."
    if not agreement.exact:
        figures = (
            f"timm's softmax differs from its probabilities by {agreement.mean:.1e} on average and "
            f"{agreement.largest:.1e} at most, and cosine_head.safetensors gives them exactly."
        )
    notify(
        f"The export is in {folder}; README.md there says how to load it. On {agreement.images:,} images it names the "
        f"student's own class for each; {figures}"
    )
