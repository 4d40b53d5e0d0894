"""Batches: they cover everything once, within the budget, and follow from the inputs alone."""

from itertools import pairwise, product

from hypothesis import given
from hypothesis import strategies as st

from safetyheads.engine.batches import blocks, chunks, padded
from safetyheads.heads import Head

lengths = st.lists(st.integers(1, 40), max_size=30)


candidates = st.lists(st.builds(Head, st.integers(0, 3), st.integers(0, 7)), min_size=1, max_size=20, unique=True).map(
    sorted
)


@given(lengths, candidates, st.integers(1, 600))
def test_blocks_cover_every_pair_once_without_padding_within_the_budget(
    sizes: list[int], heads: list[Head], budget: int
) -> None:
    covering = blocks(sizes, heads, budget)
    batches = [(block, batch) for block in covering for batch in block.batches]
    pairs = [pair for block, batch in batches for pair in product(block.prompts, batch.candidates)]
    assert sorted(pairs) == list(product(range(len(sizes)), range(len(heads))))
    assert [batch.name for _, batch in batches] == sorted({batch.name for _, batch in batches})
    for block, batch in batches:
        (length,) = {sizes[prompt] for prompt in block.prompts}
        assert {heads[index].layer for index in batch.candidates} == {batch.layer}
        rows = len(block.prompts) * len(batch.candidates)
        assert rows * length <= budget or rows == 1
        assert batch.candidates == list(range(batch.candidates[0], batch.candidates[-1] + 1))


@given(st.integers(1, 20), st.integers(1, 40), st.integers(1, 600))
def test_blocks_are_as_full_as_the_budget_allows(length: int, heads: int, budget: int) -> None:
    block = blocks([length] * 50, [Head(0, head) for head in range(heads)], budget)[0]
    batch = block.batches[0]
    more_heads = len(batch.candidates) == heads or (len(batch.candidates) + 1) * length > budget
    more_prompts = len(block.prompts) == 50 or (len(block.prompts) + 1) * heads * length > budget
    assert more_heads
    assert more_prompts


@given(st.lists(st.integers(1, 4), max_size=30), candidates, st.integers(1, 100))
def test_prompts_of_one_length_share_blocks_wherever_they_stand(
    sizes: list[int], heads: list[Head], budget: int
) -> None:
    together = sum(len(blocks([size] * sizes.count(size), heads, budget)) for size in set(sizes))
    assert len(blocks(sizes, heads, budget)) == together


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), max_size=30), *[st.integers(1, 300)] * 2)
def test_padded_batches_cover_every_row_once_longest_first_within_the_budget(
    prompts: list[list[int]], new: int, budget: int
) -> None:
    batches = padded(prompts, new, budget)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(prompts)))
    sizes = [len(prompts[index]) for index in order]
    assert sizes == sorted(sizes, reverse=True)
    for batch in batches:
        widest = len(prompts[batch[0]]) + new
        assert len(batch) == 1 or len(batch) * widest <= budget
    for batch in batches[:-1]:
        assert (len(batch) + 1) * (len(prompts[batch[0]]) + new) > budget
    changes = sum(prompts[first] != prompts[second] for first, second in pairwise(order))
    assert changes == max(0, len({tuple(prompt) for prompt in prompts}) - 1), "rows of a prompt stand together"


@given(st.lists(st.integers()), st.integers(1, 10))
def test_chunks_are_the_items_in_order(items: list[int], size: int) -> None:
    made = list(chunks(items, size))
    assert [item for chunk in made for item in chunk] == items
    assert all(len(chunk) == size for chunk in made[:-1])
