"""What the tables of `accuracy_per_query.py` have to show: goals, and the rows that each compares."""

from __future__ import annotations

from collections.abc import Sequence

from accuracy_arms import (
    ADIP_1,
    ADIP_4,
    CHOSEN_4,
    DEFAULT_1,
    DEFAULT_1_ANY,
    DEFAULT_4,
    DEFAULT_QUARTER,
    DEFAULT_QUARTER_ANY,
    DEFAULT_TEXT,
    ERM,
    ERM_OF_DEFAULT,
    KD_4,
    LP_FT_THOROUGH,
    NO_SOFT_4,
    ONLINE,
    QUARTER,
    TEXT_HEAD,
    TEXT_ONLY,
    THOROUGH_4,
    THOROUGH_NO_SOFT_4,
    VL2LITE_4,
)

Wanted = tuple[str, str, str, str, float]
"""A goal: its name, the higher and the lower row, its bound in words, and the bound in points."""

TABLE_GOALS: Sequence[Wanted] = (
    ("K=1 below online", ONLINE, ADIP_1, "<= 1.0", 1.0),
    ("K=4 below online", ONLINE, ADIP_4, "<= 0.5", 0.5),
    ("25 % of the queries below K=1", ADIP_1, QUARTER, "<= 1.0", 1.0),
    ("K=1 above text only", ADIP_1, TEXT_ONLY, "> 0", 0.0),
    ("K=4 above text only", ADIP_4, TEXT_ONLY, "> 0", 0.0),
    ("VL2V-ADiP above ERM", ADIP_4, ERM, "> 0", 0.0),
    ("default above ERM", DEFAULT_4, ERM, ">= 3.0", 3.0),
    ("default above ERM on its own views", DEFAULT_4, ERM_OF_DEFAULT, "> 0", 0.0),
    ("default above VL2V-ADiP at equal queries", DEFAULT_4, ADIP_4, ">= 1.0", 1.0),
)

GAP_GOALS: Sequence[Wanted] = (
    ("VL2V-ADiP above ERM", ADIP_4, ERM, "> 0", 0.0),
    ("default above ERM", DEFAULT_4, ERM, "> 0", 0.0),
    ("thorough above ERM", THOROUGH_4, ERM, "> 0", 0.0),
    ("default above VL2V-ADiP at equal queries", DEFAULT_4, ADIP_4, "> 0", 0.0),
    ("thorough above VL2V-ADiP at equal queries", THOROUGH_4, ADIP_4, "> 0", 0.0),
    ("thorough above default", THOROUGH_4, DEFAULT_4, "> 0", 0.0),
    (f"thorough above {LP_FT_THOROUGH}", THOROUGH_4, LP_FT_THOROUGH, "> 0", 0.0),
    ("default above itself without soft labels", DEFAULT_4, NO_SOFT_4, "> 0", 0.0),
    ("thorough above itself without soft labels", THOROUGH_4, THOROUGH_NO_SOFT_4, "> 0", 0.0),
    ("default without soft labels above VL2V-ADiP", NO_SOFT_4, ADIP_4, "> 0", 0.0),
    ("default above KD at equal queries", DEFAULT_4, KD_4, "> 0", 0.0),
    ("default above VL2Lite at equal queries", DEFAULT_4, VL2LITE_4, "> 0", 0.0),
    ("default above the text head", DEFAULT_4, TEXT_HEAD, "> 0", 0.0),
    ("the text head above ERM", TEXT_HEAD, ERM, "> 0", 0.0),
    (f"{CHOSEN_4}, above ERM", CHOSEN_4, ERM, "> 0", 0.0),
    (f"{CHOSEN_4}, above VL2V-ADiP", CHOSEN_4, ADIP_4, "> 0", 0.0),
    (f"default, K=4 above {DEFAULT_1_ANY}", DEFAULT_4, DEFAULT_1_ANY, "> 0", 0.0),
    (f"{DEFAULT_1_ANY}, above ERM", DEFAULT_1_ANY, ERM, "> 0", 0.0),
    (f"{DEFAULT_1_ANY}, above VL2V-ADiP with K=4", DEFAULT_1_ANY, ADIP_4, "> 0", 0.0),
    (f"{DEFAULT_1_ANY}, above 25 % of it", DEFAULT_1_ANY, DEFAULT_QUARTER_ANY, "> 0", 0.0),
    (f"{DEFAULT_1_ANY}, above K=1 at equal queries", DEFAULT_1_ANY, DEFAULT_1, "> 0", 0.0),
    (f"{DEFAULT_QUARTER_ANY}, above ERM", DEFAULT_QUARTER_ANY, ERM, "> 0", 0.0),
    (f"{DEFAULT_QUARTER_ANY}, above 25 % of K=1", DEFAULT_QUARTER_ANY, DEFAULT_QUARTER, "> 0", 0.0),
    ("default, K=4 above K=1", DEFAULT_4, DEFAULT_1, "> 0", 0.0),
    ("default, K=1 above ERM", DEFAULT_1, ERM, "> 0", 0.0),
    ("default, K=1 above 25 % of it", DEFAULT_1, DEFAULT_QUARTER, "> 0", 0.0),
    ("default, 25 % of K=1 above ERM", DEFAULT_QUARTER, ERM, "> 0", 0.0),
    ("default, text only above ERM", DEFAULT_TEXT, ERM, "> 0", 0.0),
)

EVERYWHERE_GOALS: Sequence[Wanted] = (
    ("default above ERM, all targets", DEFAULT_4, ERM, "> 0", 0.0),
    ("default above VL2V-ADiP, all targets", DEFAULT_4, ADIP_4, "> 0", 0.0),
    ("thorough above VL2V-ADiP, all targets", THOROUGH_4, ADIP_4, "> 0", 0.0),
)
"""Also of the targets that the gap leaves out."""

SHARE_GOALS = (
    (THOROUGH_4, 0.5),
    (DEFAULT_4, 0.0),
    (THOROUGH_NO_SOFT_4, 0.0),
    (NO_SOFT_4, 0.0),
    (CHOSEN_4, 0.0),
    (VL2LITE_4, 0.0),
    (DEFAULT_1_ANY, 0.0),
    (DEFAULT_QUARTER_ANY, 0.0),
    (DEFAULT_1, 0.0),
    (DEFAULT_QUARTER, 0.0),
    (ADIP_4, 0.0),
)
"""Row, and the share of the gap between ERM and its teacher that it has to close."""
