"""LRA and its rivals PRE-DFKD and MB-DFKD: adversarial data-free distillation with replay."""
