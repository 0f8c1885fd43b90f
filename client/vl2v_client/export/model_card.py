"""The card of an exported student, for people: what it is, how to load it, what it was made of, how good it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vl2v_client.export.agreement import Agreement
from vl2v_client.reports.pages import percent, quoted, table
from vl2v_client.student.model.spec import StudentCard

_SCORES = {"source_validation": "hold-out of the source domains (mean)", "target": "unseen domain"}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the report of a run adds to a student's card.

    Attributes:
        dataset: Name of the data set's folder; `None` if there is no report.
        source_domains: Domains it was trained on.
        compared: What the export was compared on, in words.
    """

    compared: str
    dataset: str | None = None
    source_domains: Sequence[str] = ()


def model_card(format_: str, card: StudentCard, facts: ModelFacts, agreement: Agreement) -> str:
    """Return `README.md` of an export, with the header that the Hugging Face Hub reads."""
    parts = [
        _header(format_),
        f"# {quoted(facts.dataset or 'An image classifier')}: {len(card.class_names)} classes, "
        f"{quoted(card.student.architecture)} at {card.student.input.size} pixels",
        _SUMMARIES[format_].format(architecture=quoted(card.student.architecture)),
        "## Use",
        _use(format_, card, exact=agreement.exact),
        "## Input",
        _input(card),
        "## What it was made of",
        _origin(card, facts),
        "## How good it is",
        _scores(card, facts, agreement),
        "## Licence",
        _LICENCE,
        "## Classes",
        "\n".join(f"{index}. {quoted(name)}" for index, name in enumerate(card.class_names)),
    ]
    return "\n\n".join(parts) + "\n"


_SUMMARIES = {
    "timm": "Weights of timm's `{architecture}` under timm's own names, with the student's head folded into its "
    "classifier.",
    "hf": "A model folder as timm reads it from a disk or from the Hugging Face Hub: weights of `{architecture}` with "
    "the student's head folded into its classifier.",
    "onnx": "One ONNX file: pixels in, logits and calibrated probabilities out.",
    "vl2v": "The student with its own card, exactly as it was scored; `vl2v-client predict` reads this folder.",
}

_LICENCE = (
    "No licence is given by this file. What binds you: the licence of the first weights that are named above, the "
    "terms on which the teacher's embeddings were sold, and the rights in the training images. Put your own terms here "
    "before you hand the model on."
)


def _header(format_: str) -> str:
    library = {"onnx": "onnx", "vl2v": "vl2v"}.get(format_, "timm")
    return f"---\ntags:\n- image-classification\n- {library}\nlibrary_name: {library}\nlicense: other\n---"


def _use(format_: str, card: StudentCard, *, exact: bool) -> str:
    if format_ == "vl2v":
        return _block("sh", "vl2v-client predict FOLDER new.jpg")
    if format_ == "onnx":
        return _block("python", _ONNX.format(size=card.view_size))
    source = '"local-dir:FOLDER", pretrained=True' if format_ == "hf" else _arguments(card)
    lines = [_block("python", _TIMM.format(source=source))]
    if not exact:
        lines += [_NEAR, _block("python", _EXACT)]
    return "\n\n".join(lines)


def _arguments(card: StudentCard) -> str:
    further = "".join(f", {name}={value!r}" for name, value in card.student.arguments.items())
    return (
        f'"{card.student.architecture}", num_classes={len(card.class_names)}, '
        f'checkpoint_path="FOLDER/model.safetensors"{further}'
    )


_TIMM = """import timm

model = timm.create_model({source}).eval()
probabilities = model(images).softmax(-1)  # images as below"""

_NEAR = (
    "The likeliest class is the student's own. The probabilities are its own on average only (see below): the student "
    "divides by the length of each image's embedding, which no classifier of timm can do. The exact ones, with the "
    "embeddings, from `cosine_head.safetensors`:"
)

_EXACT = """from safetensors.torch import load_file
from torch.nn.functional import linear, normalize

head = load_file("FOLDER/cosine_head.safetensors")
features = model.forward_head(model.forward_features(images), pre_logits=True)
embeddings = normalize(linear(features, head["weight"], head["bias"]), dim=-1)
probabilities = linear(embeddings, head["classifier"]).softmax(-1)"""

_ONNX = """import json, numpy, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("FOLDER/student.onnx")
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
image = Image.open("new.jpg").convert("RGB").resize(({size}, {size}), Image.Resampling.BICUBIC)
(probabilities,) = session.run(["probabilities"], {{"pixels": numpy.asarray(image)[None]}})
print(names[probabilities[0].argmax()])"""


def _block(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def _input(card: StudentCard) -> str:
    wanted, size = card.student.input, card.view_size
    lines = [
        "- RGB, turned as EXIF says; transparency on white.",
        f"- The whole image resized to {size} x {size} pixels, without keeping its proportions, by Pillow's bicubic "
        "filter.",
        f"- The network itself takes {wanted.size} x {wanted.size} floats, divided by 255, mean {list(wanted.mean)}, "
        f"deviation {list(wanted.std)}.",
    ]
    if size != wanted.size:
        lines.append(
            f"- It was scored on pixels that were resized twice, to {size} and then to {wanted.size}: resized once, a "
            "picture may be classified otherwise."
        )
    return "\n".join(lines)


def _origin(card: StudentCard, facts: ModelFacts) -> str:
    rows = {
        "data": "not recorded here" if facts.dataset is None else facts.dataset,
        "source domains": ", ".join(facts.source_domains) or "not recorded here",
        "domain held out": card.target_domain or "none",
        "method": f"{card.method}, seed {card.seed}",
        "teacher": card.teacher.get("id", "none"),
        "teacher's weights": card.teacher.get("weights_sha", "none"),
        "queries bought": ", ".join(f"{count:,} {what}" for what, count in card.queries.items()) or "none",
        "prompts": "; ".join(card.prompt_templates) or "none: a linear head",
        "first weights": card.student.origin or card.student.tag or card.student.weights_sha256 or "not recorded",
        "temperature": f"{card.temperature:.6g}, fitted on the hold-out of the source domains",
        "student's SHA-256": card.weights_sha256,
    }
    return table(["", ""], [(name, quoted(value)) for name, value in rows.items()]).replace("---:", "---")


def _scores(card: StudentCard, facts: ModelFacts, agreement: Agreement) -> str:
    scores: Mapping[str, float] = {name: card.scores[name] for name in _SCORES if name in card.scores}
    lines = [f"- {_SCORES[name]}: {percent(value)}" for name, value in scores.items()] or ["- not recorded"]
    if "target" not in card.scores:
        lines.append("- No domain was held out: expect less on images of another style.")
    how = f"differ by {agreement.largest:.1e} at most"
    if not agreement.exact:
        how = f"of that class differ by {agreement.mean:.1e} on average, any by {agreement.largest:.1e} at most"
    lines.append(
        f"- Compared with the student on {agreement.images:,} images ({quoted(facts.compared)}): the same class for "
        f"each; probabilities {how}."
    )
    return "\n".join(lines)
