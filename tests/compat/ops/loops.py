"""Operators that mmcv has for CUDA only, as plain loops in double precision.

Each function takes the inputs of a case and the gradient of its first output
(None for none) and returns outputs and gradients. Written from the formulas,
sample by sample, with nothing in common with the package.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from ops.case import Arrays

_TINY = float(np.finfo(np.float32).tiny)


def roi_pool(
    x: Arrays, grad: np.ndarray | None, pooled: tuple[int, int], scale: float
) -> Arrays:
    features, rois = x['features'], x['rois']
    _, channels, height, width = features.shape
    out = np.zeros((len(rois), channels, *pooled))
    grad_features = np.zeros_like(features)
    for r, (image, x1, y1, x2, y2) in enumerate(rois):
        left, top = x1 * scale, y1 * scale
        step_x = ((x2 + 1) * scale - left) / pooled[1]
        step_y = ((y2 + 1) * scale - top) / pooled[0]
        if step_x <= 0 or step_y <= 0:
            continue
        for i, j in product(range(pooled[0]), range(pooled[1])):
            ys = range(
                max(0, math.floor(i * step_y + top)),
                min(height, math.ceil((i + 1) * step_y + top)),
            )
            xs = range(
                max(0, math.floor(j * step_x + left)),
                min(width, math.ceil((j + 1) * step_x + left)),
            )
            for c in range(channels):
                plane = features[int(image), c]
                places = list(product(ys, xs))
                if places:
                    best = max(places, key=lambda place: plane[place])
                    out[r, c, i, j] = plane[best]
                    if grad is not None:
                        grad_features[int(image), c][best] += grad[r, c, i, j]
    return {'out0': out} | ({} if grad is None else {'grad_features': grad_features})


def _corners(y: float, x: float, height: int, width: int):
    """Pixels and weights of a sample that may lie up to one pixel outside."""
    if y < -1 or y > height or x < -1 or x > width:
        return []
    y, x = max(y, 0.0), max(x, 0.0)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    ly = 0.0 if y0 == height - 1 else y - y0
    lx = 0.0 if x0 == width - 1 else x - x0
    return [
        (y0, x0, (1 - ly) * (1 - lx)),
        (y0, x1, (1 - ly) * lx),
        (y1, x0, ly * (1 - lx)),
        (y1, x1, ly * lx),
    ]


def deform_roi_pool(
    x: Arrays,
    grad: np.ndarray | None,
    pooled: tuple[int, int],
    scale: float,
    ratio: int,
    gamma: float = float(np.float32(0.1)),
) -> Arrays:
    features, rois = x['features'], x['rois']
    offset = x.get('offset')
    _, channels, height, width = features.shape
    out = np.zeros((len(rois), channels, *pooled))
    grad_features = np.zeros_like(features)
    grad_offset = np.zeros((len(rois), 2, *pooled))
    for r, (image, x1, y1, x2, y2) in enumerate(rois):
        plane = features[int(image)]
        wide, high = (x2 - x1) * scale, (y2 - y1) * scale
        grid_x = ratio or math.ceil(wide / pooled[1])
        grid_y = ratio or math.ceil(high / pooled[0])
        for i, j in product(range(pooled[0]), range(pooled[1])):
            dx, dy = (0, 0) if offset is None else offset[r, :, i, j]
            left = x1 * scale - 0.5 + gamma * wide * dx + j * wide / pooled[1]
            top = y1 * scale - 0.5 + gamma * high * dy + i * high / pooled[0]
            for a, b in product(range(grid_y), range(grid_x)):
                y = top + (a + 0.5) * high / pooled[0] / grid_y
                u = left + (b + 0.5) * wide / pooled[1] / grid_x
                corners = _corners(y, u, height, width)
                for py, px, weight in corners:
                    out[r, :, i, j] += plane[:, py, px] * weight / (grid_x * grid_y)
                if grad is None or not corners:
                    continue
                share = grad[r, :, i, j] / (grid_x * grid_y)
                for py, px, weight in corners:
                    grad_features[int(image), :, py, px] += share * weight
                tl, tr, bl, br = (share @ plane[:, py, px] for py, px, _ in corners)
                (y0, x0), (y1_, x1_) = corners[0][:2], corners[3][:2]
                slope_x = (y - y0) * (br - bl) + (y1_ - y) * (tr - tl)
                slope_y = (u - x0) * (br - tr) + (x1_ - u) * (bl - tl)
                grad_offset[r, 0, i, j] += gamma * wide * slope_x
                grad_offset[r, 1, i, j] += gamma * high * slope_y
    grads = {'grad_features': grad_features}
    if offset is not None:
        grads['grad_offset'] = grad_offset
    return {'out0': out} | ({} if grad is None else grads)


def sigmoid_focal_loss(
    x: Arrays, grad: np.ndarray | None, gamma: float, alpha: float
) -> Arrays:
    gamma, alpha = float(np.float32(gamma)), float(np.float32(alpha))
    logits, target, weight = x['logits'], x['target'], x.get('weight')
    loss, slope = np.zeros_like(logits), np.zeros_like(logits)
    for n, c in product(*map(range, logits.shape)):
        p = 1 / (1 + math.exp(-logits[n, c]))
        log_p, log_q = math.log(max(p, _TINY)), math.log(max(1 - p, _TINY))
        if target[n] == c:
            loss[n, c] = -alpha * (1 - p) ** gamma * log_p
            slope[n, c] = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * log_p)
        else:
            loss[n, c] = -(1 - alpha) * p**gamma * log_q
            slope[n, c] = -(1 - alpha) * p**gamma * (gamma * (1 - p) * log_q - p)
        if weight is not None and target[n] < len(weight):
            loss[n, c] *= weight[target[n]]
            slope[n, c] *= weight[target[n]]
    return {'out0': loss} | ({} if grad is None else {'grad_logits': slope * grad})


def softmax_focal_loss(
    x: Arrays, grad: np.ndarray | None, gamma: float, alpha: float
) -> Arrays:
    gamma, alpha = float(np.float32(gamma)), float(np.float32(alpha))
    logits, target, weight = x['logits'], x['target'], x.get('weight')
    total, slope = 0.0, np.zeros_like(logits)
    for n, row in enumerate(logits):
        t = int(target[n])
        if t < 0:
            continue
        p = np.exp(row - row.max())
        p /= p.sum()
        factor = alpha * (1.0 if weight is None else weight[t])
        log_p = math.log(max(p[t], _TINY))
        total -= factor * (1 - p[t]) ** gamma * log_p
        outer = gamma * (1 - p[t]) ** (gamma - 1) * p[t] * log_p
        outer -= (1 - p[t]) ** gamma
        slope[n] = factor * outer * ((np.arange(len(row)) == t) - p)
    out = {'out0': np.asarray(total)}
    return out | ({} if grad is None else {'grad_logits': slope * grad})


def ms_deform_attn(x: Arrays, grad: np.ndarray | None) -> Arrays:
    value, shapes, location = x['value'], x['shapes'], x['location']
    attention = x['attention']
    batch, _, heads, channels = value.shape
    queries = location.shape[1]
    starts = np.concatenate(([0], np.cumsum(shapes.prod(1))[:-1]))
    out = np.zeros((batch, queries, heads, channels))
    grads = {
        'grad_value': np.zeros_like(value),
        'grad_location': np.zeros_like(location),
        'grad_attention': np.zeros_like(attention),
    }
    back = None if grad is None else grad.reshape(out.shape)
    for b, q, m, level, p in product(*map(range, attention.shape)):
        height, width = shapes[level]
        share = attention[b, q, m, level, p]
        u = location[b, q, m, level, p, 0] * width - 0.5
        v = location[b, q, m, level, p, 1] * height - 0.5
        if not (-1 < v < height and -1 < u < width):
            continue
        y0, x0 = math.floor(v), math.floor(u)
        sample, slope = np.zeros(channels), np.zeros((2, channels))
        for py, px in product((y0, y0 + 1), (x0, x0 + 1)):
            if not (0 <= py < height and 0 <= px < width):
                continue
            row = starts[level] + py * width + px
            pixel = value[b, row, m]
            wy, wx = 1 - abs(v - py), 1 - abs(u - px)
            sample += wy * wx * pixel
            slope[0] += wy * pixel * (1 if px > x0 else -1)
            slope[1] += wx * pixel * (1 if py > y0 else -1)
            if back is not None:
                grads['grad_value'][b, row, m] += back[b, q, m] * share * wy * wx
        out[b, q, m] += share * sample
        if back is not None:
            grads['grad_attention'][b, q, m, level, p] = back[b, q, m] @ sample
            pull = share * (slope @ back[b, q, m]) * (width, height)
            grads['grad_location'][b, q, m, level, p] = pull
    result = {'out0': out.reshape(batch, queries, -1)}
    return result if grad is None else result | grads


def carafe(
    x: Arrays, grad: np.ndarray | None, kernel: int, groups: int, scale: int
) -> Arrays:
    features, masks = x['features'], x['masks']
    batch, channels, height, width = features.shape
    out = np.zeros((batch, channels, scale * height, scale * width))
    grad_features, grad_masks = np.zeros_like(features), np.zeros_like(masks)
    half = kernel // 2
    for b, c, i, j in product(*map(range, out.shape)):
        group = c // (channels // groups)
        for u, v in product(range(kernel), range(kernel)):
            y, z = i // scale + u - half, j // scale + v - half
            if not (0 <= y < height and 0 <= z < width):
                continue
            tap = (group * kernel + u) * kernel + v
            out[b, c, i, j] += features[b, c, y, z] * masks[b, tap, i, j]
            if grad is not None:
                grad_features[b, c, y, z] += grad[b, c, i, j] * masks[b, tap, i, j]
                grad_masks[b, tap, i, j] += grad[b, c, i, j] * features[b, c, y, z]
    grads = {'grad_features': grad_features, 'grad_masks': grad_masks}
    return {'out0': out} | ({} if grad is None else grads)


def masked_conv(x: Arrays, grad: np.ndarray | None, padding: int) -> Arrays:
    image, weight = x['image'][0], x['weight']
    kernel_h, kernel_w = weight.shape[2:]
    height = image.shape[1] + 2 * padding - kernel_h + 1
    width = image.shape[2] + 2 * padding - kernel_w + 1
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    out = np.zeros((1, len(weight), height, width))
    for i, j in zip(*np.nonzero(x['mask'][0]), strict=True):
        window = padded[:, i : i + kernel_h, j : j + kernel_w]
        out[0, :, i, j] = (weight * window).sum((1, 2, 3)) + x['bias']
    return {'out0': out}
