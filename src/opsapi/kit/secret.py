"""Text that must not be seen."""


class Secret(str):
    """Shows itself nowhere: not in reprs, formatted strings, logs or error messages; `reveal` gives the text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __str__(self) -> str:
        return "(hidden)"

    def __format__(self, spec: str) -> str:
        return format("(hidden)", spec)

    def reveal(self) -> str:
        return str.__str__(self)
