"""A user's script, which uses each name of `vl2v`: mypy checks it as any caller's, and a test runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import vl2v


def show(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
    """A progress of one's own."""


def at_most_a_euro(plan: vl2v.QueryPlan) -> bool:
    return plan.currency == "EUR" and plan.amount_micro <= 1_000_000


def embed(url: str, key: str, folder: Path) -> NDArray[np.float32]:
    progress: vl2v.Progress = show
    approve: vl2v.Approval = at_most_a_euro
    picture: vl2v.ImageInput = Image.new("RGB", (12, 10), "red")
    pixels = np.zeros((10, 12, 3), dtype=np.uint8)
    with vl2v.Client(url, key, cache=folder / "client.db", approve=approve, progress=progress) as client:
        plan = client.plan_images([picture, pixels])
        assert_type(plan, vl2v.QueryPlan)
        vectors = client.embed_images([picture, pixels])
        texts = client.embed_texts(["a photo of a cat"])
        bill: vl2v.Bill = client.bill()
        report: vl2v.AuditReport = client.audit()
        if not report.is_clean or bill.units != 3:
            raise RuntimeError("the books do not agree")
    assert_type(vectors, NDArray[np.float32])
    return vectors @ texts.T


def refused(url: str, key: str, folder: Path) -> int:
    try:
        vl2v.Client(url, key, cache=folder / "other.db", progress=False).embed_texts(["unseen"])
    except vl2v.NotApproved as error:
        return error.units
    except vl2v.BudgetExhausted as error:
        return error.left or 0
    except vl2v.QueriesFailed as error:
        return len(error.failed)
    except (vl2v.VendorChanged, vl2v.VendorUnavailable, vl2v.NotAuthorized, vl2v.VendorError) as error:
        return len(f"{error.code} {error.request_id}")
    except (vl2v.DataError, vl2v.CacheError, vl2v.RunError, vl2v.UsageError) as error:
        return len(str(error))
    except vl2v.ClientError as error:
        return error.exit_code
    return 0


def train(url: str, folder: Path) -> vl2v.Run:
    """Draw a small data set and distil; the API key comes from the environment."""
    vl2v.write_shapes(
        folder / "shapes", seed=0, styles=("photo", "sketch"), images_per_class=5, class_names=("key", "fish"), size=32
    )
    config = vl2v.RunConfig(
        data=vl2v.DataConfig(root=folder / "shapes", target_domain="sketch"),
        purchase=vl2v.PurchaseConfig(vendor_url=url, cache=folder / "client.db", views=1, max_queries=20),
        student=vl2v.StudentConfig(name="tiny"),
        training=vl2v.TrainingConfig(align_steps=2, distill_steps=2, evaluate_every=2, batch_size=2, probe=False),
        report=vl2v.ReportConfig(out=folder / "run"),
    )
    return vl2v.distill(config, progress=False, device="cpu")


def classify(run: vl2v.Run, image: Path) -> list[vl2v.Prediction]:
    report: vl2v.RunReport = run.report
    assert report.rows[-1].target is not None
    student: vl2v.Student = vl2v.load(run.folder)
    one = student.predict(image)
    assert_type(one, vl2v.Prediction)
    several = student.predict([image, image])
    assert_type(several, list[vl2v.Prediction])
    assert_type(student.predict(Image.open(image)), vl2v.Prediction)
    assert_type(one.probabilities, NDArray[np.float64])
    return [one, *several]


def ask_me(url: str, key: str) -> vl2v.Client:
    return vl2v.Client(url, key, approve=vl2v.ask)
