"""Captions for the tiny teacher, and which caption is true of which picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

_ANY = -1
"""An attribute that a caption does not mention, and that is therefore true of every picture."""

_PROMPT = "a photo of a {name}"
_CLASS_TEMPLATES = ("a picture of a {name}", "{name}", "an image of the {name}")
_COLOUR_TEMPLATES = ("a photo of a {colour} {name}", "{colour} {name}")
_STYLE_TEMPLATES = ("a {style} of a {name}", "a {name} in the style of a {style}")
_FULL_TEMPLATE = "a {style} of a {colour} {name}"
_SHARES = (0.3, 0.2, 0.2, 0.15, 0.15)
"""How often a caption of each kind is drawn: prompt, class, colour, style, all."""


@dataclass(frozen=True)
class CaptionTable:
    """All captions, class by class in one order, with the attributes that each mentions.

    Attributes:
        texts: the captions, `C` of them.
        facts: class, style and colour of each caption, -1 where it mentions none, int64 `[C, 3]`.
        kinds: caption number within a class where each kind of caption starts, and the end.
    """

    texts: list[str]
    facts: Tensor
    kinds: tuple[int, ...]

    @property
    def prompts(self) -> Tensor:
        """Numbers of the captions "a photo of a ..." of all classes, int64 `[classes]`."""
        return torch.arange(0, len(self.texts), self.kinds[-1])

    def draw(self, facts: Tensor, generator: torch.Generator) -> Tensor:
        """Chooses one true caption for each picture.

        Args:
            facts: class, style and colour of each picture, -2 where it has none to speak of, int64 `[B, 3]`.
            generator: source of the choice; half of the captions name the class alone.

        Returns:
            Numbers of captions, int64 `[B]`.
        """
        per_class = self.kinds[-1]
        weights = torch.full((per_class,), 0.0)
        for (start, stop), share in zip(pairwise(self.kinds), _SHARES, strict=True):
            weights[start:stop] = share / (stop - start)
        own = self.facts[facts[:, :1] * per_class + torch.arange(per_class)]
        true = is_true(own, facts[:, None])
        chosen = torch.multinomial(weights * true, 1, generator=generator)[:, 0]
        return facts[:, 0] * per_class + chosen


def is_true(captions: Tensor, pictures: Tensor) -> Tensor:
    """Tells whether a caption's facts hold: every attribute that it mentions is the picture's (broadcasts)."""
    return ((captions == _ANY) | (captions == pictures)).all(dim=-1)


def build_captions(names: Sequence[str], styles: Sequence[str], colours: Sequence[str]) -> CaptionTable:
    """Writes every caption of every class."""
    texts: list[str] = []
    facts: list[tuple[int, int, int]] = []
    kinds: tuple[int, ...] = ()
    for label, name in enumerate(names):
        start = len(texts)
        blocks = [
            [(_PROMPT.format(name=name), _ANY, _ANY)],
            [(template.format(name=name), _ANY, _ANY) for template in _CLASS_TEMPLATES],
            [
                (template.format(name=name, colour=colour), _ANY, number)
                for template in _COLOUR_TEMPLATES
                for number, colour in enumerate(colours)
            ],
            [
                (template.format(name=name, style=style), number, _ANY)
                for template in _STYLE_TEMPLATES
                for number, style in enumerate(styles)
            ],
            [
                (_FULL_TEMPLATE.format(name=name, style=style, colour=colour), place, number)
                for place, style in enumerate(styles)
                for number, colour in enumerate(colours)
            ],
        ]
        kinds = (0,)
        for block in blocks:
            texts += [text for text, _, _ in block]
            facts += [(label, style, colour) for _, style, colour in block]
            kinds = (*kinds, len(texts) - start)
    return CaptionTable(texts, torch.tensor(facts), kinds)
