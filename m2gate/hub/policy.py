"""What becomes of a subscriber that does not read as fast as its channel is published to."""

from dataclasses import dataclass
from typing import Final, Literal

LIMIT_BYTES: Final = 1 << 20

Rule = Literal["block", "drop-oldest", "latest"]
RULES: Final = ("block", "drop-oldest", "latest")


@dataclass(frozen=True, slots=True)
class Policy:
    """The rule of one channel, and its bound.

    rule:        ``block`` slows publishers down while most subscribers cannot take more, queues up
                 to the limit for each that stays behind and then closes it; ``drop-oldest`` queues
                 up to the limit and then drops what has waited longest; ``latest`` keeps nothing
                 but the newest item.
    limit_bytes: that may wait for one subscriber; an item alone is taken whatever its size.
    Raises ValueError for an unknown rule or a limit below 1.
    """

    rule: Rule = "block"
    limit_bytes: int = LIMIT_BYTES

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"policy {self.rule!r}: use one of {', '.join(RULES)}")
        if self.limit_bytes < 1:
            raise ValueError(f"limit {self.limit_bytes!r}: the bytes that may wait are 1 or more")


DEFAULT_POLICY: Final = Policy()
