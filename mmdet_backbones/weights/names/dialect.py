"""How another source names the parameters of the same net."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from .rewriting import Rewrite

Renumber = Callable[[Collection[str]], Mapping[str, str]]
# A pattern and what re.sub puts in its place.
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
_HEADS = r'(?:fc|head|classifier)\.'

# Under what the programs of self-supervised training, of detection and of the
# transformers library keep a backbone. The first of two that fit alike is taken.
PREFIXES = (
    '', 'backbone.', 'backbone.body.', 'backbone.bottom_up.', 'model.backbone.',
    'model.backbone.model.',
    'encoder.', 'encoder_q.', 'encoder_q.0.', 'base_encoder.', 'online_net.0.',
    'online_net.backbone.', 'target_net.0.', 'teacher.backbone.', 'teacher.',
    'student.backbone.', 'student.', 'momentum_encoder.', 'img_backbone.',
    'image_encoder.', 'visual.', 'trunk.', 'model.', 'resnet.', 'swin.', 'convnext.',
    'dinov2.', 'dinov2_with_registers.', 'dinov3_vit.', 'convnextv2.', 'swinv2.',
    'vit.', 'deit.', 'beit.', 'vision_model.', 'vision_model.vision_model.',
    'model.vision_model.', 'basenet.',
)  # fmt: skip
# mmcls and mmcv keep averaged weights as buffers, whose names must have no dots.
AVERAGED = 'ema_'
# What a net computes from its own arguments. The counter of batch normalisation is
# missing in older files and has no influence with a fixed momentum.
_COMPUTED = re.compile(
    r'(?:^|\.)(?:num_batches_tracked|relative_position_index|rel_position_index|'
    r'relative_coords_table|attn_mask|position_ids|freqs_(?:cos|sin)|inv_freq)$'
)
# What belongs to the size of an image or of a window, and is interpolated to another.
_RESIZED = re.compile(
    r'(?:^|[._])(?:pos_embed(?:ding)?|position_embeddings|rel_pos_[hw]|'
    r'relative_position_bias_table)$'
)


def is_computed(key: str) -> bool:
    """Tell whether a net computes this tensor by itself, so that nothing is missed."""
    return _COMPUTED.search(key) is not None


def is_resized(key: str) -> bool:
    """Tell whether a tensor is interpolated for images or windows of another size."""
    return _RESIZED.search(key) is not None


@dataclass(frozen=True)
class Form:
    """A tensor that a source keeps in another form.

    Attributes:
        pattern: Regular expression of the backbone's keys, searched.
        read: Turns the tensor of the source into that of the backbone.
        write: The other way round.
    """

    pattern: str
    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Dialect:
    """A table that turns the key names of a backbone into those of one source.

    It works both ways: a checkpoint is read by looking up the name that each key of
    the backbone has in it, and written by giving each key that name.

    Attributes:
        name: What a report calls the dialect.
        marker: Regular expression that some key of such a checkpoint matches from
            its start and no key of another dialect does.
        rules: Pairs of a regular expression and its replacement, from the backbone's
            names to those of the source. Each key is rewritten by every rule in turn;
            a rule that does not match leaves it.
        heads: Regular expression of keys that belong to the classifier and have
            no place in a backbone.
        renumber: For a source that counts its blocks differently: takes all keys,
            before the rules, and returns the new names of those that change.
        older: Pairs as in ``rules`` that bring names of older files of the source, or
            of programs around it, up to date. For reading only.
        split: Pairs of a regular expression and the names of several tensors that the
            source keeps instead of one, stacked along the first dimension.
        forms: Tensors with another order of their channels or other dimensions.
        base: The names that ``renumber`` and ``rules`` start from, if these are not
            the backbone's own but themselves a dialect of them.
        through: Where the source and the backbone have no table between them, the one
            that leads from the names of the source to those that the rules lead to.
            Such a dialect can only be read.
        rewrite: Brings a whole file into the layout whose names the rules lead to,
            where these are made of several tensors. Such a dialect can only be read.
    """

    name: str
    marker: str
    rules: tuple[tuple[str, str], ...] = ()
    heads: str = _HEADS
    renumber: Renumber | None = None
    older: tuple[Rule, ...] = ()
    split: tuple[tuple[str, tuple[str, ...]], ...] = ()
    forms: tuple[Form, ...] = ()
    base: Dialect | None = None
    through: Dialect | None = None
    rewrite: Rewrite | None = None

    def fits(self, keys: Iterable[str]) -> bool:
        """Tell whether some key carries the marker of this dialect."""
        return any(re.match(self.marker, key) for key in keys)

    def is_head(self, key: str) -> bool:
        """Tell whether a key of the source belongs to its classifier."""
        return re.match(self.heads, key) is not None

    def spell(self, keys: Collection[str]) -> dict[str, str]:
        """Rewrite keys by this table, in the direction it is written in."""
        names = {key: key for key in keys}
        if self.base is not None:
            names = self.base.spell(keys)
        counted = self.renumber(set(names.values())) if self.renumber else {}
        return {
            key: _apply(self.rules, counted.get(name, name))
            for key, name in names.items()
        }

    def renew(self, keys: Iterable[str]) -> dict[str, str]:
        """Bring the names of older files up to date.

        Returns:
            The key as it stands in the file, by its name today.
        """
        if not self.older:
            return {key: key for key in keys}
        return {_apply(self.older, key): key for key in keys}

    def names(
        self, ours: Collection[str], theirs: Collection[str]
    ) -> dict[str, tuple[str, ...]]:
        """Name the tensors of the source that make up each one of the backbone.

        Args:
            ours: Keys of the backbone.
            theirs: Keys of the file, which matter only if it takes two tables.

        Returns:
            One name, or several of tensors that are stacked, by key of the backbone.
            Whether the file has them is not said.
        """
        spelled = self.spell(ours)
        if self.through is None:
            return {key: self.pieces(name) for key, name in spelled.items()}
        # Both tables lead to the names of a third source, where they meet.
        met = {name: key for key, name in self.through.spell(theirs).items()}
        return {key: (met[name],) for key, name in spelled.items() if name in met}

    def pieces(self, name: str) -> tuple[str, ...]:
        """Names of the tensors that the source keeps under one name of the table."""
        for pattern, parts in self.split:
            if re.search(pattern, name):
                return tuple(re.sub(pattern, part, name) for part in parts)
        return (name,)

    def reader(self, key: str, name: str) -> Callable[[Tensor], Tensor] | None:
        """How a tensor of the source becomes that of the backbone.

        Args:
            key: Of the backbone.
            name: Of the source.

        Returns:
            A function, or None where both are the same.
        """
        if self.through is not None:
            return self.through.writer(name)
        for form in self.forms:
            if re.search(form.pattern, key):
                return form.read
        return self.base.reader(key, name) if self.base is not None else None

    def writer(self, key: str) -> Callable[[Tensor], Tensor] | None:
        """How the tensor of a key of the backbone becomes that of the source."""
        for form in self.forms:
            if re.search(form.pattern, key):
                return form.write
        return self.base.writer(key) if self.base is not None else None

    def writes(self, keys: Collection[str]) -> bool:
        """Tell whether a net with these keys can be written in this dialect."""
        if self.through is not None or self.rewrite is not None:
            return False
        return self.fits(self.spell(keys).values())

    def write(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Write the weights of a backbone as the source would.

        Args:
            state_dict: Of the backbone.

        Returns:
            The tensors under the names of the source; they share memory with the
            given ones where their form is the same.

        Raises:
            ValueError: If the dialect can only be read, or gives two tensors one name.
        """
        if self.through is not None or self.rewrite is not None:
            raise ValueError(f'weights can be read from {self.name}, not written to it')
        written: dict[str, Tensor] = {}
        for key, names in self.names(state_dict, ()).items():
            value = state_dict[key]
            change = self.writer(key)
            if change is not None:
                value = change(value)
            pieces = value.chunk(len(names)) if len(names) > 1 else (value,)
            taken = [name for name in names if name in written]
            if taken:
                raise ValueError(f'{self.name} has one name for two: {taken[0]}')
            written.update(zip(names, pieces, strict=True))
        return written

    def on(self, base: Dialect) -> Dialect:
        """Return this table for a net that has the names of ``base`` by a table."""
        return replace(self, base=base)

    def meet(
        self, through: Dialect, name: str, marker: str, heads: str = _HEADS
    ) -> Dialect:
        """Return a dialect of a source whose table leads to the same names as this one.

        Args:
            through: Table from the names of the source to those.
            name: See :class:`Dialect`, like all that follow.
            marker: Of the source.
            heads: Of the source.
        """
        return replace(self, name=name, marker=marker, heads=heads, through=through)


def _apply(rules: Sequence[Rule], key: str) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


OWN = Dialect('own names', marker='')


def backwards(table: Dialect, name: str, marker: str, heads: str = _HEADS) -> Dialect:
    """Return a dialect for the nets of the source of another table.

    Args:
        table: Leads from the names of another source to those of these nets.
        name: See :class:`Dialect`, like all that follow.
        marker: Of the other source.
        heads: Of the other source.
    """
    return Dialect(name, marker, heads=heads, through=table)
