"""Looking at every example keeps the order, names what fails, and holds few at a time."""

from drn_jax.data import decoding
from drn_jax.errors import UserError


class Source:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {}

    def where(self, index):
        return f"place/{index}.png"


def test_what_is_found_comes_in_order_and_an_error_names_its_example():
    def look(index):
        if index == 3:
            raise UserError("damaged")
        if index == 5:
            raise UserError("place/5.png: damaged")
        return index

    found = list(decoding.each(Source(700), look))
    assert [str(f) for f in found if isinstance(f, UserError)] == [
        "place/3.png: damaged",
        "place/5.png: damaged",
    ]
    assert [f for f in found if not isinstance(f, UserError)] == [
        i for i in range(700) if i not in (3, 5)
    ]


def test_no_more_are_looked_at_than_the_few_that_fit():
    seen = []
    found = decoding.each(Source(10_000), seen.append)
    next(found)
    assert len(seen) <= decoding.AT_A_TIME
    found.close()
    assert len(seen) <= decoding.AT_A_TIME
