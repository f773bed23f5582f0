"""How transactional systems differ: the four phases, their 75 orderings, and the spans in which they were seen to happen."""

from retroact.decomposition.ordering import Ordering, all_orderings
from retroact.decomposition.phase import Phase
from retroact.decomposition.span import Span, classify

__all__ = ["Ordering", "Phase", "Span", "all_orderings", "classify"]
