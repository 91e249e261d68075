from lab.base.ordered import OrderedEnum


class Size(OrderedEnum):
    SMALL = "small"
    LARGE = "large"
    HUGE = "huge"


def test_the_order_is_that_of_the_definition_and_not_of_the_words() -> None:
    assert [size.rank for size in Size] == [0, 1, 2]
    assert max(Size, key=lambda size: size.rank) is Size.HUGE
    assert max(Size) is Size.SMALL
