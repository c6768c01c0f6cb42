"""Which of the method's variants a run uses: the released code's, the paper's, or single choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from classification.vdfd.options import MethodOptions


@dataclass(frozen=True)
class Variant:
    """Resolved choices; see the register of deviations in the README.

    Attributes:
        reg_tasks: which stored tasks are regularised (D1).
        quad_scale: factor of the quadratic term (D2).
        precision_eps: where epsilons I stands (D3).
        precision_rows: whether the hypermodel's rows are scaled to length one (D5).
        gcn: shape of the hypermodel (D7).
        precision_matrix: "gcn": from the hypermodel; "identity": fixed, without hypermodel and log-determinant.
    """

    reg_tasks: Literal["last", "sum"]
    quad_scale: Literal["one", "tasks_squared"]
    precision_eps: Literal["logdet", "both"]
    precision_rows: Literal["unit", "free"]
    gcn: Literal["bottleneck", "residual"]
    precision_matrix: Literal["gcn", "identity"] = "gcn"


TASK_INCREMENTAL_CODE = Variant("sum", "one", "logdet", "unit", "bottleneck")
CLASS_INCREMENTAL_CODE = Variant("last", "tasks_squared", "logdet", "unit", "residual")


def resolve_variant(options: MethodOptions, code: Variant) -> Variant:
    """Single flags over `--compat`, over the released code of the setting.

    `--compat paper` sums over all stored tasks with factor one and puts epsilons I in both places. What the paper
    leaves open (the scaling of the rows, D5; the hypermodel's shape, D7) stays as released.
    """
    base = code if options.compat == "code" else Variant("sum", "one", "both", code.precision_rows, code.gcn)
    return Variant(
        options.reg_tasks or base.reg_tasks,
        options.quad_scale or base.quad_scale,
        options.precision_eps or base.precision_eps,
        options.precision_rows or base.precision_rows,
        options.gcn or base.gcn,
        options.precision_matrix,
    )
