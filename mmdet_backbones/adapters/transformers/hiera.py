"""Hiera of transformers, whose backbone forgets to sort its tokens into windows."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.hiera.modeling_hiera import HieraBackbone, unroll
from transformers.utils import ModelOutput


class AnySizeHiera(HieraBackbone):
    """transformers' HieraBackbone with the maps of its HieraModel, for any image size.

    The class it stands for gives its blocks the tokens row by row, where they expect
    them window by window as in HieraModel, so that its maps are out of order. Positions
    are interpolated to the grid of the image (bicubic), as HieraModel can do.
    """

    def forward(self, pixel_values: Tensor) -> Any:
        """Map (N, C, H, W), both sides multiples of 32, to one map per level."""
        config, size = self.config, pixel_values.shape[2:]
        schedule = [list(config.query_stride)] * (len(config.depths) - 1)
        tokens = self.embeddings(pixel_values, interpolate_pos_encoding=True)[0]
        tokens = unroll(tokens, size, config.patch_stride, schedule)
        self.encoder.schedule = self._schedule(size)
        hidden = self.encoder(tokens, output_hidden_states=True, return_dict=True)
        maps = dict(zip(self.stage_names, hidden.reshaped_hidden_states, strict=False))
        return ModelOutput(
            feature_maps=tuple(
                self.hidden_states_norms[stage](maps[stage]).permute(0, 3, 1, 2)
                for stage in self.out_features
            )
        )

    def _schedule(self, size: Any) -> dict[int, Any]:
        """How the tokens of each stage are laid out again, by its number."""
        config = self.config
        grid = [
            side // step for side, step in zip(size, config.patch_stride, strict=True)
        ]
        left = [list(config.query_stride)] * (len(config.depths) - 1)
        schedule = {}
        for stage in range(len(config.depths)):
            schedule[stage] = left, grid
            if stage < config.num_query_pool:
                grid = [s // q for s, q in zip(grid, config.query_stride, strict=True)]
                left = left[1:]
        return schedule
