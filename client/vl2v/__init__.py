"""VL2V in Python: buy CLIP embeddings, distil them into a small classifier, and use it.

    client = vl2v.Client(url, key, max_queries=500)
    vectors = client.embed_images(pictures)                     # [N, D] float32

    run = vl2v.distill(data="photos", target_domain="sketch", client=client, max_queries=5000)

    student = vl2v.load(run.folder)
    student.predict("new.jpg").label

Everything here is what the command line `vl2v-client` uses too: one cache, one set of books, the same run folders. A
name is loaded when it is first used, so that `import vl2v` takes no time and needs no extra.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vl2v.account import Bill as Bill
    from vl2v.approval import Approval as Approval
    from vl2v.approval import ask as ask
    from vl2v.distillation import Run as Run
    from vl2v.distillation import distill as distill
    from vl2v.embedding_client import Client as Client
    from vl2v.inference import Prediction as Prediction
    from vl2v.inference import Student as Student
    from vl2v.inference import load as load
    from vl2v.inputs import ImageInput as ImageInput
    from vl2v_client.audit.audit_report import AuditReport as AuditReport
    from vl2v_client.config.run import DataConfig as DataConfig
    from vl2v_client.config.run import PurchaseConfig as PurchaseConfig
    from vl2v_client.config.run import ReportConfig as ReportConfig
    from vl2v_client.config.run import RunConfig as RunConfig
    from vl2v_client.config.run import StudentConfig as StudentConfig
    from vl2v_client.config.training import TrainingConfig as TrainingConfig
    from vl2v_client.core.errors import BudgetExhausted as BudgetExhausted
    from vl2v_client.core.errors import CacheError as CacheError
    from vl2v_client.core.errors import ClientError as ClientError
    from vl2v_client.core.errors import DataError as DataError
    from vl2v_client.core.errors import NotApproved as NotApproved
    from vl2v_client.core.errors import NotAuthorized as NotAuthorized
    from vl2v_client.core.errors import QueriesFailed as QueriesFailed
    from vl2v_client.core.errors import RunError as RunError
    from vl2v_client.core.errors import UsageError as UsageError
    from vl2v_client.core.errors import VendorChanged as VendorChanged
    from vl2v_client.core.errors import VendorError as VendorError
    from vl2v_client.core.errors import VendorUnavailable as VendorUnavailable
    from vl2v_client.core.progress import Progress as Progress
    from vl2v_client.data.shapes import write_shapes as write_shapes
    from vl2v_client.planning.query_plan import QueryPlan as QueryPlan
    from vl2v_client.reports.report import RunReport as RunReport

_NAMES = {
    "vl2v.account": ("Bill",),
    "vl2v.approval": ("Approval", "ask"),
    "vl2v.distillation": ("Run", "distill"),
    "vl2v.embedding_client": ("Client",),
    "vl2v.inference": ("Prediction", "Student", "load"),
    "vl2v.inputs": ("ImageInput",),
    "vl2v_client.audit.audit_report": ("AuditReport",),
    "vl2v_client.config.run": ("DataConfig", "PurchaseConfig", "ReportConfig", "RunConfig", "StudentConfig"),
    "vl2v_client.config.training": ("TrainingConfig",),
    "vl2v_client.core.errors": (
        *("BudgetExhausted", "CacheError", "ClientError", "DataError", "NotApproved", "NotAuthorized"),
        *("QueriesFailed", "RunError", "UsageError", "VendorChanged", "VendorError", "VendorUnavailable"),
    ),
    "vl2v_client.core.progress": ("Progress",),
    "vl2v_client.data.shapes": ("write_shapes",),
    "vl2v_client.reports.report": ("RunReport",),
    "vl2v_client.planning.query_plan": ("QueryPlan",),
}
"""Module: the names that come from it, as above for mypy and editors."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULES)

if not TYPE_CHECKING:  # to mypy, a name that is not above is an error

    def __getattr__(name: str) -> Any:
        """Load a name when it is first used.

        Raises:
            AttributeError: There is no such name.
            ImportError: It needs a package that is not installed; the message names it and its extra.
        """
        if name not in _MODULES:
            raise AttributeError(f"module 'vl2v' has no attribute {name!r}")
        try:
            found = getattr(import_module(_MODULES[name]), name)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package.startswith("vl2v"):
                raise
            from vl2v_client.core.extras import missing_package

            raise ImportError(f"vl2v.{name}: {missing_package(error, 'client')}", name=package) from error
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
