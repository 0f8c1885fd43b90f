"""What `accuracy_per_query.py` compares: each arm is a name, and what a user would type after `vl2v-client distill`."""

from __future__ import annotations

from dataclasses import dataclass

TEACHER, ERM = "zero-shot teacher", "ERM"
CLASS_MEANS, NEAREST = "class means of source vectors", "10 nearest source vectors"
BESIDE_TEACHER = (CLASS_MEANS, NEAREST)
"""Classifiers made of bought vectors, scored where the teacher's row is; a record from before them lacks them."""

ADIP_4, DEFAULT_4, ERM_OF_DEFAULT = "VL2V-ADiP, K=4", "default, K=4", "ERM, views of default"
ADIP_1, ONLINE = "VL2V-ADiP, K=1", "VL2V-ADiP, online"
MORE_VIEWS, ERM_FRESH = "VL2V-ADiP, K=4, 32 views", "ERM, fresh views"
QUARTER, TENTH, TEXT_ONLY = "VL2V-ADiP, 25 % of K=1", "VL2V-ADiP, 10 % of K=1", "VL2V-ADiP, text only"

NO_SOFT_LABELS = ("--soft-label-weight", "0")
PUBLISHED = ("--view-recipe", "standard", *NO_SOFT_LABELS)
"""Without the styles and the soft labels that the default preset has for a student of timm."""

METHODS = {
    "linear probe": "linear-probe",
    "KD": "kd",
    "image cosine": "image-cosine",
    "text cosine": "text-cosine",
    "RISE relative": "rise-relative",
    "feature MSE": "feature-mse",
    "SimKD": "simkd",
    "no align": "adip-no-align",
    "align only": "adip-align-only",
    "joint": "adip-joint",
}
"""Row: `--method`, each with K=4."""

TEXT_HEAD, KD_4, VL2LITE_4 = "text head", "KD, K=4", "VL2Lite, K=4"
FIELD = {TEXT_HEAD: "text-head", KD_4: "kd", VL2LITE_4: "vl2lite"}
"""Row: `--method`: what else the field would do with the default's labels, queries and views."""

SWITCHES = {
    "image weight 0.25": ("--image-weight", "0.25"),
    "image weight 0.75": ("--image-weight", "0.75"),
    "label weight 0.3": ("--label-weight", "0.3"),
    "mixup 0.2": ("--mixup", "0.2"),
    "published hue": ("--view-recipe", "published"),
    "styles": ("--view-recipe", "styles"),
    "EMA": ("--carry", "ema"),
    "WiSE-FT": ("--interpolate",),
    "ImageNet's normalisation": ("--paper-normalisation",),
}
"""Row: what it adds to VL2V-ADiP with K=4."""

SETTINGS = {
    "align by Adam alone": ("--align", "adam"),
    "by agreement": ("--trust", "agreement"),
    "half the rate": ("--learning-rate", "2.5e-4"),
    "twice the rate": ("--learning-rate", "1e-3"),
    "nothing frozen": ("--freeze-until", "0"),
    "image weight 0.75": ("--image-weight", "0.75"),
    "six views that borrow": ("--train-views", "10"),
    "the six styles": ("--view-recipe", "all-styles"),
    "no styles": ("--view-recipe", "standard"),
}
"""Row: what it changes in the default, with K=4, with soft labels and without."""

ONE_VIEW = {
    "the bought view alone": (),
    "plain views that borrow": ("--train-views", "4", "--view-recipe", "standard"),
    "styled views that borrow": ("--train-views", "4"),
    "styled views of their text": ("--train-views", "4", "--unbought", "text"),
}
"""Row: what it changes in the default without soft labels, with K=1.

Views that are not bought borrow the answer, unless it is of text.
"""

ANY_VIEW = ("--views", "4", "--select", "random-views")
"""Where a quarter of these queries is spent, one view of each image is bought: any of the four that are trained on."""

OTHERS = {"the others of their text": ("--unbought", "text"), "no others": ("--unbought", "leave-out")}
"""Row: what the views that are not bought train on."""

ERM_ROWS = {"linear probe": "linear-probe", "LP-FT": "lp-ft", "fine-tuning": "erm"}
"""Row after "ERM, ": `--method`; ERM is, for each target and seed, the best of these on source validation."""

THOROUGH_4, DEFAULT_1, DEFAULT_QUARTER = "thorough, K=4", "default, K=1", "default, 25 % of K=1"
NO_SOFT = "default without soft labels"
NO_SOFT_4, THOROUGH_NO_SOFT_4 = f"{NO_SOFT}, K=4", "thorough without soft labels, K=4"
SOFT_4 = "default, soft labels 4"
LP_FT_THOROUGH = "ERM, LP-FT, steps of thorough"
DEFAULT_TEXT = "default, text only"
DEFAULT_1_ANY, DEFAULT_QUARTER_ANY = "default, K=1, any view", "default, 25 % of K=1, any view"
CHOSEN_4 = "default, the loss that its sources choose, K=4"
"""For each target the arm of `setting_arms` that was best when each of its sources was left out."""

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5)
"""Of the training images, in the curve, between none and all."""


@dataclass(frozen=True)
class Arm:
    """One way to spend queries.

    Attributes:
        row: of its student in the table.
        options: after `vl2v-client distill`.
        share: of the images that are bought; below 1 a stratified random choice.
        erm_row: of an ERM that is trained beside it on the same views.
        erm_everywhere: on every target, or on the first alone.
        everywhere: the arm itself.
        with_teacher: the teacher's own row is measured beside it, also without an ERM.
        online: a local teacher sees fresh views at every step, and nothing is bought.
        local: a local teacher answers, and nothing is bought.
    """

    row: str
    options: tuple[str, ...]
    share: float = 1.0
    erm_row: str | None = None
    erm_everywhere: bool = False
    everywhere: bool = False
    with_teacher: bool = False
    online: bool = False
    local: bool = False

    @property
    def slug(self) -> str:
        """Its row as a folder's name."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.row.lower())

    @property
    def asks_the_teacher(self) -> bool:
        """Whether the teacher's own row is measured beside it, which asks about the unseen domain."""
        return self.with_teacher or self.erm_row == ERM


def table_arms() -> tuple[Arm, ...]:
    """The rows of the table: ERM, VL2V-ADiP and default on every target, all others on the first."""
    return (
        Arm(ADIP_4, _published(4), erm_row=ERM, erm_everywhere=True, everywhere=True),
        Arm(DEFAULT_4, _default(4), erm_row=ERM_OF_DEFAULT, everywhere=True),
        Arm(ADIP_1, _published(1)),
        Arm(MORE_VIEWS, _published(4, trains_on=32)),
        Arm(ONLINE, PUBLISHED, online=True),
        Arm(QUARTER, _published(1), share=0.25),
        Arm(TENTH, _published(1), share=0.1),
        Arm(TEXT_ONLY, _published(0)),
    )


def curve_arms() -> tuple[Arm, ...]:
    """The points of the curve: the table's, and for both methods no, some and all images at K=1, then K=4 and K=10."""
    arms = {ERM_FRESH: Arm(ERM_FRESH, (*PUBLISHED, "--method", "erm"), online=True)}
    for name, options in (("VL2V-ADiP", _published), ("default", _default)):
        points = [Arm(f"{name}, {100 * share:g} % of K=1", options(1), share=share) for share in SHARES]
        points += [Arm(f"{name}, K={views}", options(views)) for views in (1, 4, 10)]
        points += [Arm(f"{name}, text only", options(0))]
        arms |= {arm.row: arm for arm in points}
    return tuple((arms | {arm.row: arm for arm in table_arms()}).values())


def method_arms() -> tuple[Arm, ...]:
    """VL2V-ADiP against each other method of the literature, and against itself with one thing changed."""
    published = _published(4)
    methods = [Arm(row, (*published, "--method", method)) for row, method in METHODS.items()]
    switches = [Arm(f"VL2V-ADiP, {row}", (*published, *options)) for row, options in SWITCHES.items()]
    itself = Arm("VL2V-SD", (*published, "--method", "vl2v-sd"), local=True)
    return Arm(ADIP_4, published, erm_row=ERM), *methods, itself, *switches


def gap_arms() -> tuple[Arm, ...]:
    """How much of the gap between ERM and its teacher a pretrained student closes, and what fewer queries cost.

    Every row has the schedule, optimizer and frozen blocks of `default`, its steps unless it names `thorough`, and four
    views of each image; K=1 and a quarter of it have the one that is asked about, as the preset has it, unless the row
    says otherwise. "Any view" asks about a random one of the four, and an image of which one was bought is seen in it
    alone. The published loss has unstyled views and the published align, ERM and other methods the views of `default`.
    """
    default, thorough = _default(4), (*_default(4), "--preset", "thorough")
    one, alone = _default(1), OTHERS["no others"]
    methods = {f"{ERM}, {row}": method for row, method in ERM_ROWS.items()} | FIELD
    return (
        *(Arm(row, (*default, "--method", method), everywhere=True) for row, method in methods.items()),
        Arm(ADIP_4, (*default, *PUBLISHED, "--align", "adam"), everywhere=True),
        Arm(DEFAULT_4, default, with_teacher=True, everywhere=True),
        Arm(NO_SOFT_4, (*default, *NO_SOFT_LABELS), everywhere=True),
        Arm(SOFT_4, (*default, "--soft-label-weight", "4"), everywhere=True),
        Arm(THOROUGH_4, thorough, everywhere=True),
        Arm(THOROUGH_NO_SOFT_4, (*thorough, *NO_SOFT_LABELS), everywhere=True),
        Arm(LP_FT_THOROUGH, (*thorough, "--method", "lp-ft"), everywhere=True),
        Arm(DEFAULT_1, one, everywhere=True),
        Arm(DEFAULT_QUARTER, one, share=0.25, everywhere=True),
        Arm(DEFAULT_1_ANY, (*ANY_VIEW, *alone), share=0.25, everywhere=True),
        Arm(DEFAULT_QUARTER_ANY, (*ANY_VIEW, *alone), share=0.0625, everywhere=True),
        Arm(DEFAULT_TEXT, (*_default(0), "--train-views", "4"), everywhere=True),
    )


def setting_arms() -> tuple[Arm, ...]:
    """The default with soft labels and without, each also with one thing changed, and other losses."""
    default, published = _default(4), (*_default(4), *NO_SOFT_LABELS)
    return (
        Arm(NO_SOFT_4, published),
        *(Arm(f"{NO_SOFT}, {row}", (*published, *options)) for row, options in SETTINGS.items()),
        *(Arm(f"default, {row}", (*default, *options)) for row, options in SETTINGS.items()),
        Arm(VL2LITE_4, (*default, "--method", FIELD[VL2LITE_4])),
        Arm("default, soft labels 1", (*default, "--soft-label-weight", "1")),
        Arm(SOFT_4, (*default, "--soft-label-weight", "4")),
        Arm(DEFAULT_4, default),
    )


def one_view_arms() -> tuple[Arm, ...]:
    """What the student trains on where one view of each image is bought, for source domains to choose from."""
    one, any_view = (*_default(1), *NO_SOFT_LABELS), (*ANY_VIEW, *NO_SOFT_LABELS)
    of_first = (Arm(f"{NO_SOFT}, K=1, {row}", (*one, *options)) for row, options in ONE_VIEW.items())
    of_any = (
        Arm(f"{NO_SOFT}, K=1 of four, {row}", (*any_view, *options), share=0.25) for row, options in OTHERS.items()
    )
    return *of_first, *of_any


def plan_arms() -> tuple[Arm, ...]:
    """Ways to spend a tenth of K=1 on VL2V-ADiP: which images, and what the others train on."""
    published = _published(1)
    baseline = Arm(ADIP_4, _published(4), erm_row=ERM)
    covering = Arm("10 %, k-center", (*published, "--select", "k-center"), share=0.1)
    imputed = Arm("10 %, random, ridge", (*published, "--impute", "ridge"), share=0.1)
    return baseline, Arm(TENTH, published, share=0.1), Arm(TEXT_ONLY, _published(0)), covering, imputed


def _published(views: int, *, trains_on: int = 4) -> tuple[str, ...]:
    """The published loss, on four views or more whatever is bought: arms differ in targets, not in augmentation."""
    return ("--views", str(views), *PUBLISHED, "--train-views", str(max(views, trains_on)))


def _default(views: int) -> tuple[str, ...]:
    return ("--views", str(views))
