"""Slow, obvious re-implementations in float64 numpy, written from the papers' formulas.

A layer is given by the matrix W(x) that acts on its flattened input; its output is ``W(x) @ x``.
A network is the product of its layers' matrices. Nothing here knows about gradients.

Boehle et al., CVPR 2022 (arXiv:2205.10268) for the B-cos transform; TPAMI 2024 (arXiv:2306.10898)
for norms, attention and the constants 1e-12 (linear, outside the root) and 1e-6 (convolution,
inside it).
"""

from dataclasses import dataclass

import numpy as np
import torch


def array(tensor):
    """Float64 numpy copy of a tensor."""
    return tensor.detach().double().numpy().copy()


# --- B-cos layers -------------------------------------------------------------------------------


def unit_rows(weight):
    """Every output row or filter divided by its length."""
    return np.stack([row / np.sqrt((row**2).sum()) for row in weight])


def bcos_row(units, x, norm, b):
    """Row of W(x) for one output with the given unit-length candidates: ``|cos|^(b-1) w``."""
    best = max(units, key=lambda unit: (unit * x).sum())
    return abs((best * x).sum() / norm) ** (b - 1) * best


def bcos_linear_matrix(weight, x, b=2.0, max_out=1):
    """``(out, in)`` matrix of a B-cos linear layer at the vector ``x``; units output-major."""
    units = unit_rows(weight).reshape(-1, max_out, len(x))
    norm = np.sqrt((x**2).sum()) + 1e-12
    return np.stack([bcos_row(candidates, x, norm, b) for candidates in units])


def source_pixel(index, size, mode):
    """Which entry of an axis of length ``size`` the padded ``index`` reads; None for a zero."""
    if 0 <= index < size:
        return index
    match mode:
        case "zeros":
            return None
        case "replicate":
            return 0 if index < 0 else size - 1
        case "circular":
            return index % size
        case "reflect":
            return -index if index < 0 else 2 * (size - 1) - index


def sides(padding, kernel, dilation):
    """(before, after) padding of one axis; "same" puts the odd pixel after."""
    if padding == "same":
        total = dilation * (kernel - 1)
        return total // 2, total - total // 2
    return (0, 0) if padding == "valid" else (padding, padding)


def bcos_conv_matrix(
    weight, x, *, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, mode="zeros", b=2.0,
    max_out=1,
):  # fmt: skip
    """Matrix ``(out * h' * w', in * h * w)`` of a B-cos convolution at ``x``; its output shape."""
    chans, height, width = x.shape
    per_group, rows, columns = weight.shape[1:]
    units = unit_rows(weight).reshape(-1, max_out, per_group, rows, columns)
    out = len(units)
    top, bottom = sides(padding[0], rows, dilation[0])
    left, right = sides(padding[1], columns, dilation[1])
    out_height = (height + top + bottom - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    out_width = (width + left + right - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    places = np.arange(chans * height * width).reshape(x.shape)
    matrix = np.zeros((out, out_height, out_width, x.size))
    for p in range(out_height):
        for q in range(out_width):
            for group in range(groups):
                mine = slice(group * per_group, (group + 1) * per_group)
                patch = np.zeros((per_group, rows, columns))
                where = np.full(patch.shape, -1)
                for i in range(rows):
                    for j in range(columns):
                        y = source_pixel(p * stride[0] + i * dilation[0] - top, height, mode)
                        z = source_pixel(q * stride[1] + j * dilation[1] - left, width, mode)
                        if y is not None and z is not None:
                            patch[:, i, j] = x[mine, y, z]
                            where[:, i, j] = places[mine, y, z]
                norm = np.sqrt((patch**2).sum() + 1e-6)
                for o in range(group * out // groups, (group + 1) * out // groups):
                    row = bcos_row(units[o], patch, norm, b)
                    np.add.at(matrix[o, p, q], where[where >= 0], row[where >= 0])
    return matrix.reshape(-1, x.size), (out, out_height, out_width)


# --- linear and normalising layers --------------------------------------------------------------


def average_pool_matrix(shape, kernel, stride, padding):
    """Mean over each window, counting the padding's zeros; and the output shape."""
    chans, height, width = shape
    out_height = (height + 2 * padding - kernel) // stride + 1
    out_width = (width + 2 * padding - kernel) // stride + 1
    matrix = np.zeros((chans, out_height, out_width, chans, height, width))
    for p in range(out_height):
        for q in range(out_width):
            for y in range(p * stride - padding, p * stride - padding + kernel):
                for z in range(q * stride - padding, q * stride - padding + kernel):
                    if 0 <= y < height and 0 <= z < width:
                        for c in range(chans):
                            matrix[c, p, q, c, y, z] = 1 / kernel**2
    out = (chans, out_height, out_width)
    return matrix.reshape(np.prod(out), np.prod(shape)), out


def layer_norm_matrix(x, weight, eps=1e-5):
    """``weight (x - mean) / sqrt(var + eps)`` of one vector."""
    centre = np.eye(len(x)) - 1 / len(x)
    deviation = np.sqrt(((centre @ x) ** 2).mean() + eps)
    return np.diag(weight / deviation) @ centre


def group_norm_matrix(x, weight, groups=1, eps=1e-5):
    """The same over groups of channels and all positions of ``(chans, height, width)``."""
    chans, area = len(x), x[0].size
    scales = np.repeat(weight, area)
    matrix = np.zeros((x.size, x.size))
    size = chans // groups * area
    for group in range(groups):
        mine = slice(group * size, (group + 1) * size)
        matrix[mine, mine] = layer_norm_matrix(x.ravel()[mine], scales[mine], eps)
    return matrix


def batch_norm_matrix(shape, running_var, weight, eps=1e-5):
    """``weight x / sqrt(running_var + eps)``, nothing subtracted."""
    return np.diag(np.repeat(weight / np.sqrt(running_var + eps), shape[1] * shape[2]))


# --- tokens -------------------------------------------------------------------------------------


def patch_matrix(shape, size):
    """Permutation that lays patches out one after the other, each by row, column, channel."""
    chans, height, width = shape
    places = np.arange(np.prod(shape)).reshape(shape)
    order = [
        places[c, p + i, q + j]
        for p in range(0, height, size)
        for q in range(0, width, size)
        for i in range(size)
        for j in range(size)
        for c in range(chans)
    ]
    return np.eye(len(order))[order]


def block_diagonal(blocks):
    """One matrix that applies ``blocks[i]`` to token ``i``."""
    rows, columns = blocks[0].shape
    matrix = np.zeros((len(blocks) * rows, len(blocks) * columns))
    for i, block in enumerate(blocks):
        matrix[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = block
    return matrix


def sincos_code(grid, dim, temperature=10_000.0):
    """``(rows * columns, dim)``: x-sin, x-cos, y-sin, y-cos of dim/4 frequencies each."""
    count = dim // 4
    omega = [1 / temperature ** (k / (count - 1)) for k in range(count)]
    return np.array(
        [
            [np.sin(column * w) for w in omega]
            + [np.cos(column * w) for w in omega]
            + [np.sin(row * w) for w in omega]
            + [np.cos(row * w) for w in omega]
            for row in range(grid[0])
            for column in range(grid[1])
        ]
    )


def rotary_angles(grid, head_dim, temperature=100.0):
    """``(rows * columns, head_dim / 2)``: the angle by which each pair of entries is turned."""
    count = head_dim // 4
    omega = [1 / temperature ** (k / count) for k in range(count)]
    return np.array(
        [
            [row * w for w in omega] + [column * w for w in omega]
            for row in range(grid[0])
            for column in range(grid[1])
        ]
    )


def turn(x, sines, cosines):
    """Every pair ``(x[2i], x[2i+1])`` turned by the angle with that sine and cosine."""
    y = np.empty_like(x)
    for i in range(len(x) // 2):
        even, odd = x[2 * i], x[2 * i + 1]
        y[2 * i] = even * cosines[i] - odd * sines[i]
        y[2 * i + 1] = even * sines[i] + odd * cosines[i]
    return y


def attention_weights(queries, keys):
    """Softmax over keys of ``q k / sqrt(d)``, one row per query."""
    rows = []
    for query in queries:
        powers = np.array([np.exp(query @ key / np.sqrt(len(key))) for key in keys])
        rows.append(powers / powers.sum())
    return np.stack(rows)


def attention_matrix(tokens, qkv, heads, turns=None):
    """``sum_h kron(A_h, V_h)`` on the flattened ``(n, dim)`` tokens, before any projection.

    ``turns`` holds the sines and cosines of the rotary code, ``(n, head_dim / 2)`` each.
    """
    dim = tokens.shape[1]
    size = dim // heads
    matrix = np.zeros((tokens.size, tokens.size))
    for head in range(heads):
        mine = slice(head * size, (head + 1) * size)
        queries = [qkv[:dim][mine] @ token for token in tokens]
        keys = [qkv[dim : 2 * dim][mine] @ token for token in tokens]
        if turns is not None:
            queries = [turn(*each) for each in zip(queries, *turns, strict=True)]
            keys = [turn(*each) for each in zip(keys, *turns, strict=True)]
        value = np.zeros((dim, dim))
        value[mine] = qkv[2 * dim :][mine]
        matrix += np.kron(attention_weights(queries, keys), value)
    return matrix


def seen_in_window(grid, window, shift):
    """Per place of a map: the places it attends to, None for padding, and how far off they are.

    The map is rolled up and left by ``shift``, padded below and right to whole windows, and cut.
    Places rolled over an edge lie in the last rows or columns, and stay apart from the others.
    """
    padded = [-(-size // side) * side for size, side in zip(grid, window, strict=True)]
    seen = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            here = ((row - shift[0]) % grid[0], (column - shift[1]) % grid[1])
            corner = [place // side * side for place, side in zip(here, window, strict=True)]
            others = []
            for there_row in range(corner[0], corner[0] + window[0]):
                for there_column in range(corner[1], corner[1] + window[1]):
                    there = (there_row, there_column)
                    if any(
                        (here[axis] >= padded[axis] - shift[axis])
                        != (there[axis] >= padded[axis] - shift[axis])
                        for axis in (0, 1)
                    ):
                        continue
                    place = None
                    if there_row < grid[0] and there_column < grid[1]:
                        rolled_back = [(there[axis] + shift[axis]) % grid[axis] for axis in (0, 1)]
                        place = rolled_back[0] * grid[1] + rolled_back[1]
                    others.append((place, (here[0] - there_row, here[1] - there_column)))
            seen.append(others)
    return seen


def window_attention_matrix(maps, qkv, table, heads, window, shifted, qkv_bias=None):
    """``sum_h kron(A_h, V_h)`` on a flattened ``(rows, columns, dim)`` map, before any projection.

    ``table`` holds a number per offset and head, ``(2 h - 1, 2 w - 1, heads)`` for ``(h, w)``
    windows; a window is cut down to a smaller map, and then not shifted along that axis.
    """
    grid, dim = maps.shape[:2], maps.shape[2]
    size = dim // heads
    bias = np.zeros(3 * dim) if qkv_bias is None else qkv_bias
    shift = [
        side // 2 if shifted and places > side else 0
        for places, side in zip(grid, window, strict=True)
    ]
    fitted = [min(places, side) for places, side in zip(grid, window, strict=True)]
    tokens = maps.reshape(-1, dim)
    matrix = np.zeros((tokens.size, tokens.size))
    for head in range(heads):
        mine = slice(head * size, (head + 1) * size)
        mixing = np.zeros((len(tokens), len(tokens)))
        for place, others in enumerate(seen_in_window(grid, fitted, shift)):
            query = qkv[:dim][mine] @ tokens[place] + bias[:dim][mine]
            powers = []
            for other, (down, right) in others:
                token = np.zeros(dim) if other is None else tokens[other]
                key = qkv[dim : 2 * dim][mine] @ token + bias[dim : 2 * dim][mine]
                near = table[down + window[0] - 1, right + window[1] - 1, head]
                powers.append(np.exp(query @ key / np.sqrt(size) + near))
            for (other, _), power in zip(others, powers, strict=True):
                if other is not None:
                    mixing[place, other] += power / sum(powers)
        value = np.zeros((dim, dim))
        value[mine] = qkv[2 * dim :][mine]
        matrix += np.kron(mixing, value)
    return matrix


# --- networks -----------------------------------------------------------------------------------


@dataclass
class Trace:
    """A flattened activation, the matrix from the image to it, and what no pixel owns of it."""

    value: np.ndarray
    matrix: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(cls, image):
        return cls(image.ravel(), np.eye(image.size), np.zeros(image.size))

    def through(self, matrix):
        return Trace(matrix @ self.value, matrix @ self.matrix, matrix @ self.offset)

    def plus(self, other):
        return Trace(
            self.value + other.value, self.matrix + other.matrix, self.offset + other.offset
        )

    def plus_constant(self, code):
        return Trace(self.value + code.ravel(), self.matrix, self.offset + code.ravel())


def _linear(trace, layer, tokens):
    vectors = trace.value.reshape(tokens, -1)
    weight = array(layer.weight)
    blocks = [bcos_linear_matrix(weight, x, layer.b, layer.max_out) for x in vectors]
    return trace.through(block_diagonal(blocks))


def _layer_norm(trace, layer, tokens):
    weight = array(layer.weight)
    blocks = [layer_norm_matrix(x, weight) for x in trace.value.reshape(tokens, -1)]
    return trace.through(block_diagonal(blocks))


def _conv(trace, layer, shape, stride, padding):
    matrix, out = bcos_conv_matrix(
        array(layer.weight), trace.value.reshape(shape), stride=(stride, stride),
        padding=(padding, padding), b=layer.b, max_out=layer.max_out,
    )  # fmt: skip
    return trace.through(matrix), out


def _batch_norm(trace, layer, shape):
    return trace.through(batch_norm_matrix(shape, array(layer.running_var), array(layer.weight)))


def vit_logits(model, image, patch_size, heads):
    """Trace of a B-cos ViT's evidence (logits before temperature and bias) at one image."""
    trace, shape = Trace.of(image), image.shape
    if hasattr(model.patch_embed, "convs"):
        for conv, norm in zip(
            model.patch_embed.convs[::3], model.patch_embed.convs[1::3], strict=True
        ):
            stride = (
                2 if conv.weight.shape[0] // conv.max_out > shape[0] or shape == image.shape else 1
            )
            trace, shape = _conv(trace, conv, shape, stride, 1)
            trace = trace.through(group_norm_matrix(trace.value.reshape(shape), array(norm.weight)))
        trace = trace.through(patch_matrix(shape, 1))
    else:
        trace = trace.through(patch_matrix(shape, patch_size))
    grid = (image.shape[1] // patch_size, image.shape[2] // patch_size)
    tokens = grid[0] * grid[1]
    trace = _linear(trace, model.patch_embed.proj, tokens)
    dim = len(trace.value) // tokens
    turns = None
    if model.pos_embed is not None:
        # This table and the next are float32; tests compare them with formulas on their own.
        nothing = torch.zeros(1, tokens, dim, dtype=torch.float64)
        trace = trace.plus_constant(array(model.pos_embed(nothing, grid)[0]))
    if model.rope is not None:
        table = array(model.rope(grid, None))
        turns = table[:, : dim // heads : 2], table[:, dim // heads :: 2]
    for block in model.blocks:
        inner = _layer_norm(trace, block.norm1, tokens)
        inner = inner.through(
            attention_matrix(
                inner.value.reshape(tokens, dim), array(block.attn.qkv.weight), heads, turns
            )
        )
        trace = trace.plus(_linear(inner, block.attn.proj, tokens))
        inner = _layer_norm(trace, block.norm2, tokens)
        inner = _linear(_linear(inner, block.mlp.fc1, tokens), block.mlp.fc2, tokens)
        trace = trace.plus(inner)
    trace = trace.through(np.kron(np.full((1, tokens), 1 / tokens), np.eye(dim)))
    trace = _layer_norm(trace, model.norm, 1)
    return _linear(trace, model.head, 1)


def resnet_logits(model, image):
    """Trace of a B-cos ResNet's evidence (logits before temperature and bias) at one image."""
    trace, shape = _conv(Trace.of(image), model.conv1, image.shape, 2, 3)
    trace = _batch_norm(trace, model.bn1, shape)
    matrix, shape = average_pool_matrix(shape, 3, 2, 1)
    trace = trace.through(matrix)
    for stage, blocks in enumerate([model.layer1, model.layer2, model.layer3, model.layer4]):
        for i, block in enumerate(blocks):
            stride = 2 if stage > 0 and i == 0 else 1
            inner, after = _conv(trace, block.conv1, shape, stride, 1)
            inner = _batch_norm(inner, block.bn1, after)
            inner, after = _conv(inner, block.conv2, after, 1, 1)
            inner = _batch_norm(inner, block.bn2, after)
            if stride != 1:
                trace, _ = _conv(trace, block.downsample[0], shape, stride, 0)
                trace = _batch_norm(trace, block.downsample[1], after)
            trace, shape = trace.plus(inner), after
    trace, shape = _conv(trace, model.fc, shape, 1, 0)
    area = shape[1] * shape[2]
    return trace.through(np.kron(np.eye(shape[0]), np.full((1, area), 1 / area)))


def merging_matrix(grid, dim):
    """Lays the tokens of 2 x 2 squares side by side, column by column; zeros over an edge."""
    rows = []
    for row in range(0, grid[0], 2):
        for column in range(0, grid[1], 2):
            for place in ((0, 0), (1, 0), (0, 1), (1, 1)):
                there = (row + place[0], column + place[1])
                for k in range(dim):
                    line = np.zeros(grid[0] * grid[1] * dim)
                    if there[0] < grid[0] and there[1] < grid[1]:
                        line[(there[0] * grid[1] + there[1]) * dim + k] = 1
                    rows.append(line)
    return np.stack(rows)


def swin_logits(model, image, patch_size, window, heads):
    """Trace of a B-cos Swin's evidence (logits before temperature and bias) at one image."""
    trace = Trace.of(image).through(patch_matrix(image.shape, patch_size))
    grid = (image.shape[1] // patch_size, image.shape[2] // patch_size)
    trace = _linear(trace, model.patch_embed.proj, grid[0] * grid[1])
    trace = _layer_norm(trace, model.patch_embed.norm, grid[0] * grid[1])
    for index, stage in enumerate(model.layers):
        dim = len(trace.value) // (grid[0] * grid[1])
        if index > 0:
            trace = trace.through(merging_matrix(grid, dim))
            grid, dim = (-(-grid[0] // 2), -(-grid[1] // 2)), 2 * dim
            trace = _layer_norm(trace, stage.downsample.norm, grid[0] * grid[1])
            trace = _linear(trace, stage.downsample.reduction, grid[0] * grid[1])
        tokens = grid[0] * grid[1]
        for i, block in enumerate(stage.blocks):
            inner = _layer_norm(trace, block.norm1, tokens)
            table = array(block.attn.relative_position_bias_table)
            mixing = window_attention_matrix(
                inner.value.reshape(*grid, dim), array(block.attn.qkv.weight),
                table.reshape(2 * window - 1, 2 * window - 1, -1), heads[index],
                (window, window), i % 2 == 1,
            )  # fmt: skip
            inner = _linear(inner.through(mixing), block.attn.proj, tokens)
            trace = trace.plus(inner)
            inner = _layer_norm(trace, block.norm2, tokens)
            inner = _linear(_linear(inner, block.mlp.fc1, tokens), block.mlp.fc2, tokens)
            trace = trace.plus(inner)
    if not model.fc_norm:
        trace = _layer_norm(trace, model.norm, tokens)
    trace = trace.through(np.kron(np.full((1, tokens), 1 / tokens), np.eye(dim)))
    if model.fc_norm:
        trace = _layer_norm(trace, model.norm, 1)
    return _linear(trace, model.head, 1)


def one_hot_bce(logits, labels, off_target):
    """Mean over images of the sum over classes of ``-t log p - (1 - t) log(1 - p)``."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        for c, logit in enumerate(row):
            p = 1 / (1 + np.exp(-logit))
            t = 1.0 if c == label else off_target
            total -= t * np.log(p) + (1 - t) * np.log(1 - p)
    return total / len(logits)
