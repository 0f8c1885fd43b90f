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
    from vl2v.account import Bill
    from vl2v.approval import Approval, ask
    from vl2v.distillation import Run, distill
    from vl2v.embedding_client import Client
    from vl2v.inference import Prediction, Student, load
    from vl2v.inputs import ImageInput
    from vl2v_client.audit.audit_report import AuditReport
    from vl2v_client.config.run import DataConfig, PurchaseConfig, ReportConfig, RunConfig, StudentConfig
    from vl2v_client.config.training import TrainingConfig
    from vl2v_client.core.errors import (
        BudgetExhausted,
        CacheError,
        ClientError,
        DataError,
        NotApproved,
        NotAuthorized,
        QueriesFailed,
        RunError,
        UsageError,
        VendorChanged,
        VendorError,
        VendorUnavailable,
    )
    from vl2v_client.core.progress import Progress
    from vl2v_client.data.shapes import write_shapes
    from vl2v_client.export.report import RunReport
    from vl2v_client.planning.query_plan import QueryPlan

__all__ = [
    "Approval",
    "AuditReport",
    "Bill",
    "BudgetExhausted",
    "CacheError",
    "Client",
    "ClientError",
    "DataConfig",
    "DataError",
    "ImageInput",
    "NotApproved",
    "NotAuthorized",
    "Prediction",
    "Progress",
    "PurchaseConfig",
    "QueriesFailed",
    "QueryPlan",
    "ReportConfig",
    "Run",
    "RunConfig",
    "RunError",
    "RunReport",
    "Student",
    "StudentConfig",
    "TrainingConfig",
    "UsageError",
    "VendorChanged",
    "VendorError",
    "VendorUnavailable",
    "ask",
    "distill",
    "load",
    "write_shapes",
]

_MODULES = {
    "Approval": "vl2v.approval",
    "AuditReport": "vl2v_client.audit.audit_report",
    "Bill": "vl2v.account",
    "BudgetExhausted": "vl2v_client.core.errors",
    "CacheError": "vl2v_client.core.errors",
    "Client": "vl2v.embedding_client",
    "ClientError": "vl2v_client.core.errors",
    "DataConfig": "vl2v_client.config.run",
    "DataError": "vl2v_client.core.errors",
    "ImageInput": "vl2v.inputs",
    "NotApproved": "vl2v_client.core.errors",
    "NotAuthorized": "vl2v_client.core.errors",
    "Prediction": "vl2v.inference",
    "Progress": "vl2v_client.core.progress",
    "PurchaseConfig": "vl2v_client.config.run",
    "QueriesFailed": "vl2v_client.core.errors",
    "QueryPlan": "vl2v_client.planning.query_plan",
    "ReportConfig": "vl2v_client.config.run",
    "Run": "vl2v.distillation",
    "RunConfig": "vl2v_client.config.run",
    "RunError": "vl2v_client.core.errors",
    "RunReport": "vl2v_client.export.report",
    "Student": "vl2v.inference",
    "StudentConfig": "vl2v_client.config.run",
    "TrainingConfig": "vl2v_client.config.training",
    "UsageError": "vl2v_client.core.errors",
    "VendorChanged": "vl2v_client.core.errors",
    "VendorError": "vl2v_client.core.errors",
    "VendorUnavailable": "vl2v_client.core.errors",
    "ask": "vl2v.approval",
    "distill": "vl2v.distillation",
    "load": "vl2v.inference",
    "write_shapes": "vl2v_client.data.shapes",
}
"""Name: the module that it comes from, as above for mypy and editors."""

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
