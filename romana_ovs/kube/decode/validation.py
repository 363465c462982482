"""What is wrong with one object, gathered while it is decoded, and the readers that find it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from romana_ovs.model.syntax import plain, shown, word_for

NO_FIELDS: Mapping[str, object] = {}


class Validator:
    """Collects the problems of one object; `prefix` leads to it from the top of its document.

    Paths given to its methods are relative to the object, such as `spec.ingress[0]`. `unknown` holds the
    paths of objects in which an unknown field stands.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.entries: list[tuple[str, str]] = []
        self.unknown: set[str] = set()
        self.valid = True

    def wrong(self, path: str, reason: str) -> None:
        """The object cannot be used because of what stands at `path`."""
        self.valid = False
        self.entries.append((path, reason))

    def doubtful(self, path: str, reason: str) -> None:
        """Something to be told, but the object keeps a meaning."""
        self.entries.append((path, reason))

    def names(self, path: str) -> bool:
        """Whether anything was said about `path` itself."""
        return any(entry == path for entry, _ in self.entries)

    def concerns(self, path: str) -> bool:
        """Whether anything was said about `path` or what lies below it."""
        return any(entry == path or entry.startswith((path + ".", path + "[")) for entry, _ in self.entries)

    def mapping(
        self, value: object, path: str, known: Collection[str] | None = None, *, hint: str = ""
    ) -> Mapping[str, object]:
        """`value` as an object, empty when it is null or (noted) something else.

        Fields that are not in `known` are noted, with `hint` for what may have been meant.
        """
        if value is None:
            return NO_FIELDS
        if not isinstance(value, dict):
            self.wrong(path, f"must be an object, not {word_for(value)}")
            return NO_FIELDS
        if known is not None:
            for key in value:
                if key not in known:
                    self.unknown.add(path)
                    self.wrong(f"{path}.{plain(key)}" if path else plain(key), f"unknown field{hint}")
        return value

    def listing(self, value: object, path: str) -> list[object]:
        """`value` as a list, empty when it is null or (noted) something else."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(path, f"must be a list, not {word_for(value)}")
            return []
        return value

    def entries_of(
        self, value: object, path: str, known: Collection[str] | None = None
    ) -> Iterator[tuple[str, Mapping[str, object]]]:
        """(path, object) of each object in the list `value`; what is none is noted and left out."""
        for index, entry in enumerate(self.listing(value, path)):
            where = f"{path}[{index}]"
            if isinstance(entry, dict):
                yield where, self.mapping(entry, where, known)
            else:
                self.wrong(where, f"must be an object, not {word_for(entry)}")

    def text(self, value: object, path: str) -> str:
        """`value` as a string, empty when it is null or (noted) something else."""
        if value is None:
            return ""
        if not isinstance(value, str):
            hint = ' (quote it, as in "yes" or "12")' if isinstance(value, (bool, int, float)) else ""
            self.wrong(path, f"must be a string, not {word_for(value)}{hint}")
            return ""
        return value

    def flag(self, value: object, path: str) -> bool:
        """`value` as a boolean, False when it is null or (noted) something else."""
        if value is None:
            return False
        if not isinstance(value, bool):
            self.wrong(path, f"must be true or false, not {shown(value)}")
            return False
        return value

    def whole(self, value: object, path: str, *, low: int, high: int) -> int | None:
        """`value` as an integer in `low`..`high`, None when it is null or (noted) not one."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(path, f"must be a number from {low} to {high}, not {shown(value)}")
            return None
        if not low <= value <= high:
            self.wrong(path, f"{shown(value)} is not between {low} and {high}")
            return None
        return value
