"""Options of commands that train: the student and its hyper-parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudentName = Annotated[
    str, typer.Option(help="`tiny`, or any timm name, with or without a tag of pretrained weights.")
]
StudentWeights = Annotated[
    Path | None, typer.Option(help="Local safetensors under timm's names, instead of a pretrained tag.")
]
StudentSize = Annotated[int | None, typer.Option(min=16, help="Input size in pixels, if not the usual.")]
AlignSteps = Annotated[int | None, typer.Option(min=1, help="Steps of the align stage.")]
DistillSteps = Annotated[int | None, typer.Option(min=1, help="Steps of the distill stage.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images per source domain and step.")]
AlignLearningRate = Annotated[float | None, typer.Option(help="Of the align stage.")]
LearningRate = Annotated[float | None, typer.Option(help="Of the distill stage.")]
ImageWeight = Annotated[
    float | None, typer.Option(min=0, max=1, help="Weight of the image term, 0 to 1; the text term has the rest.")
]
TrainViews = Annotated[
    int | None,
    typer.Option(min=1, help="Views of each image to train on, if more than are bought: the others borrow its target."),
]
LabelWeight = Annotated[
    float | None, typer.Option(min=0, help="Weight of a cross-entropy on labels beside the published loss; 0 is none.")
]
Mixup = Annotated[
    float | None, typer.Option(min=0, help="Blend views and targets by Beta(a, a) shares; an approximation.")
]
EvaluateEvery = Annotated[int | None, typer.Option(min=1, help="Steps between evaluations (SWAD).")]
ChannelsLast = Annotated[
    bool | None, typer.Option("--channels-last", help="Memory format that suits convolutional students.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
BFloat16 = Annotated[bool | None, typer.Option("--bfloat16", help="Forward passes in bfloat16, faster on recent GPUs.")]
Compile = Annotated[bool | None, typer.Option("--compile", help="Compile the student with torch.compile, for GPUs.")]
LoaderWorkers = Annotated[
    int | None,
    typer.Option("--loader-workers", min=0, help="Threads that load the next views; by device if left out."),
]
Preset = Annotated[
    str, typer.Option(help="Hyper-parameters that no option names: default, or paper, the published protocol.")
]
OwnNormalisation = Annotated[
    bool | None,
    typer.Option(
        "--own-normalisation/--paper-normalisation",
        help="The student's input as it was pretrained, or ImageNet's for all, the published fault; by preset.",
        show_default=False,
    ),
]
Carry = Annotated[str | None, typer.Option(help="Weights that the last stage leaves: swad, ema, best or last.")]
Interpolate = Annotated[bool | None, typer.Option("--interpolate", help="WiSE-FT between first and trained weights.")]
