"""What stands beside every score: what a network costs, and how far it sees."""

from collections.abc import Sequence
from dataclasses import dataclass

from drn_jax.analysis import cost
from drn_jax.analysis.cost import StageCost
from drn_jax.analysis.receptive_field import Row


@dataclass(frozen=True)
class Price:
    """Of a whole network, for one input: a score of several crops or scales costs that for each."""

    height: int
    width: int
    """Of the input, its margin included."""
    parameters: int
    multiply_adds: int
    """See `cost.StageCost`."""
    activation_bytes: int
    """See `cost.StageCost`."""
    sees: int
    """Side of the square that reaches a cell of the last map, in places of the input."""

    def words(self, places: str = "pixels") -> dict[str, str]:
        """For a report. `places`: what the input has."""
        of_input = f"for one training input of {self.height} x {self.width}"
        return {
            "receptive field": f"{self.sees:,} x {self.sees:,} {places} a cell of the class map",
            "parameters": f"{self.parameters:,}",
            "multiply-adds": f"{self.multiply_adds / 1e6:,.1f} million {of_input}",
            "activations": f"{self.activation_bytes / 1e6:,.1f} MB {of_input}",
        }


def of(costs: Sequence[StageCost], fields: Sequence[Row], height: int, width: int) -> Price:
    """The price of a network, from its stages' costs for an input of this size, and fields."""
    total = cost.total(costs)
    return Price(
        height,
        width,
        total.parameters,
        total.multiply_adds,
        total.activation_bytes,
        fields[-1].size,
    )
