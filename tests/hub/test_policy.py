import pytest

from m2gate.hub.policy import Policy, Rule


def test_default_is_block_at_one_mebibyte() -> None:
    assert Policy() == Policy("block", 1_048_576)


@pytest.mark.parametrize(("rule", "limit"), [("drop", 1), ("", 1), ("block", 0), ("latest", -1)])
def test_what_cannot_work_is_a_value_error(rule: Rule, limit: int) -> None:
    with pytest.raises(ValueError, match=r"policy|limit"):
        Policy(rule, limit)
