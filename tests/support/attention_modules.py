"""PyTorch blocks whose attention takes a small matrix of the whole image: sums over positions, of pairs of channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

REGIONS = 12


def linear_attention(x: Tensor) -> Tensor:
    """Attention with ReLU in the place of the softmax, two heads, normalised by a channel of ones (Cai et al. 2023)."""
    batch, channels, height, width = x.shape
    heads = x.reshape(batch, 2, channels // 2, height * width).transpose(-1, -2)
    query, key = torch.relu(heads), torch.relu(0.5 - heads)
    value = functional.pad(heads, (0, 1), mode="constant", value=1.0)
    found = query @ (key.transpose(-1, -2) @ value)
    found = found[..., :-1] / (found[..., -1:] + 1e-5)
    return x + found.transpose(-1, -2).reshape(batch, channels, height, width)


def linear_attention_by_einsum(x: Tensor) -> Tensor:
    """With elu + 1, normalised by the sum of keys (Katharopoulos et al. 2020)."""
    flat = x.flatten(2)
    query, key = functional.elu(flat) + 1, functional.elu(-flat) + 1
    weighted = torch.einsum("bdn,ben->bde", key, flat)
    total = 1 / (torch.einsum("bdn,bd->bn", query, torch.einsum("bdn->bd", key)) + 1e-6)
    found = torch.einsum("bde,bdn->ben", weighted, query) * total.unsqueeze(1)
    return x + found.reshape(x.shape)


def efficient_attention(x: Tensor) -> Tensor:
    """Keys by a softmax over positions, queries by one over channels (Shen et al. 2021)."""
    flat = x.flatten(2)
    query, key = torch.softmax(flat, 1), torch.softmax(-flat, 2)
    found = torch.einsum("bde,bdn->ben", torch.einsum("bdn,ben->bde", key, flat), query)
    return x + found.reshape(x.shape)


def channel_attention(x: Tensor) -> Tensor:
    """Channels by their products with all others (Fu et al. 2019)."""
    flat = x.flatten(2)
    affinity = torch.bmm(flat, flat.transpose(1, 2)) * 1e-3
    return x + torch.bmm(torch.softmax(affinity.amax(-1, keepdim=True) - affinity, -1), flat).reshape(x.shape)


def object_context(x: Tensor) -> Tensor:
    """Pixels attend to regions, which are means of the image weighted by a softmax over it (Yuan et al. 2020)."""
    batch, channels, height, width = x.shape
    flat = x.flatten(2)
    soft = torch.cat([flat, 0.5 - flat[:, : REGIONS - channels]], 1)
    regions = torch.matmul(torch.softmax(soft, 2), flat.transpose(1, 2))
    weights = torch.softmax(torch.matmul(flat.transpose(1, 2), regions.transpose(1, 2)) * channels**-0.5, -1)
    return x + torch.matmul(weights, regions).transpose(1, 2).reshape(batch, channels, height, width)


BLOCKS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear_attention": linear_attention,
    "linear_attention_by_einsum": linear_attention_by_einsum,
    "efficient_attention": efficient_attention,
    "channel_attention": channel_attention,
    "object_context": object_context,
}
