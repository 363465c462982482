"""Names the error codes of CNI. Source: CNI specification 1.1.0, section 5, and section 2 for those of STATUS."""

from __future__ import annotations

from typing import Any

from romana_ovs.model.errors import RomanaError

UNSUPPORTED_FIELD = 2
CONTAINER_UNKNOWN = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIGURATION = 7
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
INTERFACE_EXISTS = 100
"""CNI_IFNAME exists in the namespace already. Codes from 100 on are the plugin's own."""
NOT_AS_ADDED = 101
"""CHECK: something is not as ADD has left it."""
INTERNAL = 999
"""As CNI's own library has it."""


class CniError(RomanaError):
    """A request of a runtime cannot be served: a code, a sentence, and maybe details."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        self.code = code
        self.details = details
        super().__init__(message)

    def to_json(self) -> dict[str, Any]:
        """The error object of the specification."""
        return {"code": self.code, "msg": str(self), **({"details": self.details} if self.details else {})}
