"""What the model reads: the sources, and how often each occurs in a mix."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Shares are passes over the source in one round of a mix; a fraction takes a part of it."""

    main: float
    anneal: float
    tokenizer_copies: int = 1
    tokenizer_every: int = 1  # of its records, every n-th goes into the tokenizer's training text


# While the learning rate is high, stories may be seen often (23 times here) and are hardly learnt by
# heart. While it falls they are: with the stories three to four times a round of `anneal` the model
# could recite them (0.31 nats a token) and was worse than before on fairy tales it had not seen
# (4.98 nats, from 3.16); once a round gave 2.96.
#
# world_factbook is left out: lists teach a small story model nothing it can use.
SOURCES = {
    "pratham_storyweaver_en": Source(main=3, anneal=1, tokenizer_copies=4),
    "african_storybook_en": Source(main=3, anneal=1, tokenizer_copies=4),
    "aesop_for_children": Source(main=3, anneal=1, tokenizer_copies=4),
    "fairytaleqa_stories": Source(main=3, anneal=1, tokenizer_copies=4),
    "children_classics": Source(main=2, anneal=1, tokenizer_copies=2),
    "onestop_english": Source(main=1, anneal=0.5),
    "public_domain_recipes": Source(main=1, anneal=0.25),
    "us_presidential_speeches": Source(main=0.5, anneal=0.25),
    "openstax_textbooks": Source(main=0.5, anneal=0.25, tokenizer_every=8),
    "english_novels_100": Source(main=1, anneal=1, tokenizer_every=3),
    "eltec_novels": Source(main=1, anneal=1, tokenizer_every=3),
    "classic_books": Source(main=1, anneal=1, tokenizer_every=4),
}

# One record (a chapter) in 400 of these becomes the set `heldout_novels`.
HOLD_OUT_FROM = ("english_novels_100", "eltec_novels", "classic_books")
