"""The result of verifying an exported file: a list of checks, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that was verified.

    Attributes:
        name: what was checked, a short phrase.
        passed: whether it holds.
        detail: one line: the measured figures, or what is wrong.
        value: the largest measured difference, relative; None where nothing is measured.
        warning: it holds but somebody should know, e.g. the gradient is zero.
        zero: the gradient is rightly zero everywhere, so that heat maps are empty.
        layer: the target layer that it is about, counted from 0.
    """

    name: str
    passed: bool
    detail: str
    value: float | None = None
    warning: bool = False
    zero: bool = False
    layer: int = 0


@dataclass(frozen=True)
class VerificationReport:
    """All checks of one exported file."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)

    @property
    def zero_layers(self) -> tuple[int, ...]:
        """Target layers whose explanation is right and empty: the gradient is zero everywhere."""
        return tuple(check.layer for check in self.checks if check.zero)

    @property
    def is_zero(self) -> bool:
        """Whether there is such a layer."""
        return bool(self.zero_layers)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What holds but should be known, one line each."""
        return tuple(f"{c.name}: {c.detail}" for c in self.checks if c.passed and c.warning)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            "passed": self.passed,
            "checks": [
                {
                    "name": check.name,
                    "passed": check.passed,
                    "detail": check.detail,
                    "value": check.value,
                    "warning": check.warning,
                }
                for check in self.checks
            ],
        }

    def summary(self) -> str:
        """Return one line per check."""
        width = max((len(check.name) for check in self.checks), default=0)
        return "\n".join(
            f"{_mark(check):7} {check.name:{width}}  {check.detail}".rstrip()
            for check in self.checks
        )


def _mark(check: Check) -> str:
    if not check.passed:
        return "FAILED"
    return "warning" if check.warning else "ok"
