# SPDX-License-Identifier: LGPL-2.1-or-later
"""The autoencoder's arithmetic again, arranged for training speed.

Runs on the parameters of a reference VAE module (same object, same gradients), with
activations [B, T, H, W, C].  A causal 3x3x3 convolution becomes one 2D convolution over
three neighbouring frames side by side in the channel dimension: 2D kernels in bf16,
channels last, are the best tuned ones there are.  Normalising, SiLU, edge padding and the
side-by-side copy are one pass over memory each way in fastvae_triton.py; the same steps
stand here as plain tensor formulas, which run anywhere.

`Fast(vae)` offers encode_moments(x) and decode(z) like the module, on [B, C, T, H, W].
"""
import sys

import torch
import torch.nn.functional as F


# ---- formulas ----

def _taps_index(t_out, h_out, w_out, t_in, h_in, w_in, taps, st, up, device):
    """Index tensors that read a padded, upsampled [T, H, W] frame block, `taps` frames each."""
    ft, fs = up
    t = torch.arange(t_out, device=device)[:, None, None, None] * st
    k = torch.arange(taps, device=device)
    t = (t + k - (taps - 1)).clamp(min=0)
    if ft == 2:                      # the first frame is not repeated
        t = (t + 1) // 2
    h = (torch.arange(h_out, device=device)[:, None, None] - 1).clamp(0, h_in * fs - 1) // fs
    w = (torch.arange(w_out, device=device)[:, None] - 1).clamp(0, w_in * fs - 1) // fs
    return t, h, w


def gather(x, taps, st, up):
    """[B, T, H, W, C] -> padded [B, T', H'+2, W'+2, taps * C]"""
    b, t, h, w, c = x.shape
    tu = t if up[0] == 1 else 2 * t - 1
    to = (tu - 1) // st + 1
    ho, wo = h * up[1] + 2, w * up[1] + 2
    i = _taps_index(to, ho, wo, t, h, w, taps, st, up, x.device)
    return x[:, i[0], i[1], i[2]].reshape(b, to, ho, wo, taps * c)


def norm_sums(x):
    """Sums over a row of pixels of x and x^2: two [B, T * H, C] f32"""
    f = x.float()
    return f.sum(3).flatten(1, 2), (f * f).sum(3).flatten(1, 2)


def norm_coefficients(s1, s2, weight, bias, groups, count, eps):
    """-> mean, rstd [B, G]; a, c [B, C] with normalised x = a * x + c"""
    b, _, ch = s1.shape
    m1 = s1.sum(1).view(b, groups, -1).sum(2) / count
    m2 = s2.sum(1).view(b, groups, -1).sum(2) / count
    rstd = torch.rsqrt((m2 - m1 * m1).clamp(min=0) + eps)
    a = (rstd[:, :, None] * weight.float().view(groups, -1)).view(b, ch)
    c = bias.float() - (m1[:, :, None].expand(-1, -1, ch // groups).reshape(b, ch)) * a
    return m1, rstd, a, c


def norm_gather(x, a, c, taps):
    b, t, h, w, ch = x.shape
    i = _taps_index(t, h + 2, w + 2, t, h, w, taps, 1, (1, 1), x.device)
    y = x[:, i[0], i[1], i[2]].float() * a[:, None, None, None, None] + c[:, None, None, None, None]
    y = y * torch.sigmoid(y)
    return y.to(x.dtype).reshape(b, t, h + 2, w + 2, taps * ch)


def fold_time(g, c):
    """Gradient of the three side-by-side frames [.., 3C] -> [.., C], but for frame 0's padding."""
    g0, g1, g2 = g[..., :c].float(), g[..., c:2 * c].float(), g[..., 2 * c:].float()
    z = torch.zeros_like(g0[:, :1])
    y = g2 + torch.cat([g1[:, 1:], z], 1)
    y = y + (torch.cat([g0[:, 2:], z, z], 1) if g.shape[1] > 1 else 0)
    return y.to(g.dtype)


def fold_time_2(g, c, t):
    """The same for a time stride of 2: g [B, T', ..], result has t frames."""
    g0, g1, g2 = g[..., :c].float(), g[..., c:2 * c].float(), g[..., 2 * c:].float()
    # tap k of output n read frame max(2n + k - 2, 0): even frames come from taps 0 and 2
    z = torch.zeros_like(g0[:, :1])
    even = g2 + torch.cat([g0[:, 1:], z], 1)
    odd = torch.cat([g1[:, 1:], z], 1)
    y = torch.stack([even, odd], 2).flatten(1, 2)[:, :t]
    return y.to(g.dtype)


def silu_back(g, x, a, c):
    """-> gradient before SiLU; its sums over rows, alone and times x: two [B, T * H, C] f32"""
    f = x.float()
    u = f * a[:, None, None, None] + c[:, None, None, None]
    s = torch.sigmoid(u)
    du = g.float() * s * (1 + u * (1 - s))
    return du.to(x.dtype), du.sum(3).flatten(1, 2), (du * f).sum(3).flatten(1, 2)


def norm_back_coefficients(p1, p2, mean, rstd, weight, groups, count):
    """-> dweight, dbias [C]; per [B, C]: dx = a * du + e * x + f"""
    b, _, ch = p1.shape
    s1, s2 = p1.sum(1), p2.sum(1)                              # B, C
    per = ch // groups
    mc = mean.repeat_interleave(per, 1)
    rc = rstd.repeat_interleave(per, 1)
    sx = rc * (s2 - mc * s1)                                   # sum of du * xhat
    w = weight.float()
    k1 = (s1 * w).view(b, groups, per).sum(2) / count
    k2 = (sx * w).view(b, groups, per).sum(2) / count
    k1, k2 = k1.repeat_interleave(per, 1), k2.repeat_interleave(per, 1)
    e = -rc * rc * k2
    f = -rc * k1 + rc * rc * k2 * mc
    return sx.sum(0), s1.sum(0), e, f


def norm_back(dy, x, a, e, f):
    def wide(v):
        return v[:, None, None, None]
    return (wide(a) * dy.float() + wide(e) * x.float() + wide(f)).to(x.dtype)


def fold_borders(g):
    """Adds the gradient of the repeated borders to the border they repeat; returns a view."""
    g[:, :, 1] += g[:, :, 0]
    g[:, :, -2] += g[:, :, -1]
    g[:, :, :, 1] += g[:, :, :, 0]
    g[:, :, :, -2] += g[:, :, :, -1]
    return g[:, :, 1:-1, 1:-1]


def fold(g, c, taps, st, t):
    """Gradient of gather() without upsampling: [B, T', H+2, W+2, taps*C] -> [B, T, H, W, C]"""
    if taps == 1:
        return fold_borders(g.clone())
    y = fold_time(g, c) if st == 1 else fold_time_2(g, c, t)
    # the two frames repeated in front of the first one
    y[:, 0] += g[:, 0, ..., :c] + g[:, 0, ..., c:2 * c]
    if st == 1 and g.shape[1] > 1:
        y[:, 0] += g[:, 1, ..., :c]
    return fold_borders(y)


# ---- the two differentiable steps ----

_kernels = None                     # fastvae_triton, once use_kernels() found it right


def use_kernels(on=True):
    global _kernels
    _kernels = None
    if on:
        import fastvae_triton
        _kernels = fastvae_triton


def _fits(x):
    return _kernels is not None and _kernels.usable(x)


class Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, taps, st, up):
        ctx.shape, ctx.taps, ctx.st, ctx.up = x.shape, taps, st, up
        return (_kernels if _fits(x) else _formulas).gather(x, taps, st, up)

    @staticmethod
    def backward(ctx, g):
        b, t, h, w, c = ctx.shape
        ft, fs = ctx.up
        tu = 2 * t - 1 if ft == 2 else t
        fits = _kernels is not None and (c & (c - 1)) == 0
        y = (_kernels if fits else _formulas).fold(g.contiguous(), c, ctx.taps, ctx.st, tu)
        if fs == 2:
            y = y.reshape(b, tu, h, 2, w, 2, c).sum((3, 5))
        if ft == 2:
            y = torch.cat([y[:, :1], y[:, 1:].reshape(b, t - 1, 2, h, w, c).sum(2)], 1)
        return y, None, None, None


class NormGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps, taps):
        b, t, h, w, c = x.shape
        fits = _fits(x)
        s1, s2 = _kernels.norm_sums(x) if fits else norm_sums(x)
        count = float(t * h * w * (c // groups))
        mean, rstd, a, sh = norm_coefficients(s1, s2, weight, bias, groups, count, eps)
        ctx.save_for_backward(x, weight, mean, rstd, a, sh)
        ctx.groups, ctx.taps, ctx.count = groups, taps, count
        return _kernels.gather(x, taps, 1, (1, 1), a, sh) if fits else norm_gather(x, a, sh, taps)

    @staticmethod
    def backward(ctx, g):
        x, weight, mean, rstd, a, c = ctx.saved_tensors
        ch, t = x.shape[4], x.shape[1]
        if _fits(x):
            dy, p1, p2 = _kernels.fold(g.contiguous(), ch, ctx.taps, 1, t, x, a, c)
        else:
            dy = fold(g.contiguous(), ch, ctx.taps, 1, t)
            dy, p1, p2 = silu_back(dy, x, a, c)
        dw, db, e, f = norm_back_coefficients(p1, p2, mean, rstd, weight, ctx.groups, ctx.count)
        dx = (_kernels if _fits(x) else _formulas).norm_back(dy, x, a, e, f)
        return dx, dw.to(weight.dtype), db.to(weight.dtype), None, None, None


_formulas = sys.modules[__name__]


# ---- the network ----

def _round8(n):
    return (n + 7) // 8 * 8


class Fast:
    """Runs a reference VAE module's parameters; `dtype` is that of the activations."""

    def __init__(self, vae, dtype=torch.float32):
        self.vae, self.dtype = vae, dtype

    def _conv2d(self, x, conv, taps, stride):
        """x: gathered [B, T, H, W, taps*C]; `conv`: the module's Conv3d"""
        w, bias = conv.weight, conv.bias
        o, i = w.shape[:2]
        if taps == 1:
            w = w.sum(2)                     # the same frame three times
        else:
            w = w.permute(0, 2, 1, 3, 4).reshape(o, taps * i, 3, 3)
        if o % 8:                            # odd channel counts are slow: fill up with zeros
            w = F.pad(w, (0, 0, 0, 0, 0, 0, 0, _round8(o) - o))
            bias = F.pad(bias, (0, _round8(o) - o))
        if x.shape[4] != w.shape[1]:
            w = F.pad(w, (0, 0, 0, 0, 0, x.shape[4] - w.shape[1]))
        b, t = x.shape[:2]
        w = w.to(self.dtype).contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), w, bias.to(self.dtype), stride)
        y = y.permute(0, 2, 3, 1)
        if o % 8:
            y = y[..., :o]
        return y.unflatten(0, (b, t))

    def conv(self, x, m, up=(1, 1)):
        """a CausalConv module with a kernel of 3, on an upsampled or plain input"""
        st, ss = m.conv.stride[0], m.conv.stride[1]
        if x.shape[1] == 1:
            taps, st, up = 1, 1, (1, up[1])
        else:
            taps = 3
        y = Gather.apply(x, taps, st, up)
        if y.shape[4] % 8:
            y = F.pad(y, (0, _round8(y.shape[4]) - y.shape[4]))
        return self._conv2d(y, m.conv, taps, ss)

    def norm_conv(self, x, norm, m):
        taps = 1 if x.shape[1] == 1 else 3
        y = NormGather.apply(x.contiguous(), norm.weight, norm.bias, norm.num_groups, norm.eps, taps)
        return self._conv2d(y, m.conv, taps, 1)

    def resnet(self, x, m):
        y = self.norm_conv(x, m.norm1, m.conv1)
        y = self.norm_conv(y, m.norm2, m.conv2)
        if m.conv_shortcut is not None:
            x = self.pointwise(x, m.conv_shortcut.conv)
        return x + y

    def pointwise(self, x, conv):
        return F.linear(x, conv.weight.flatten(1).to(self.dtype), conv.bias.to(self.dtype))

    def attention(self, x, m):
        b, t, h, w, c = x.shape
        y = F.group_norm(x.flatten(1, 3).transpose(1, 2).float(), m.group_norm.num_groups,
                         m.group_norm.weight, m.group_norm.bias, m.group_norm.eps)
        y = y.transpose(1, 2).to(self.dtype)
        q, k, v = (F.linear(y, l.weight.to(self.dtype), l.bias.to(self.dtype)).unsqueeze(1)
                   for l in (m.to_q, m.to_k, m.to_v))
        mask = None
        if t > 1:
            frame = torch.arange(t * h * w, device=x.device) // (h * w)
            mask = frame[:, None] >= frame[None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).squeeze(1)
        out = m.to_out[0]
        y = F.linear(y, out.weight.to(self.dtype), out.bias.to(self.dtype))
        return x + y.view(b, t, h, w, c)

    def mid(self, x, m):
        x = self.resnet(x, m.resnets[0])
        for a in m.attentions:
            x = self.attention(x, a)
        return self.resnet(x, m.resnets[1])

    def encode_moments(self, x):
        e = self.vae.encoder
        x = x.permute(0, 2, 3, 4, 1).to(self.dtype).contiguous()
        x = self.conv(x, e.conv_in)
        for stage in e.down_blocks:
            for r in stage.resnets:
                x = self.resnet(x, r)
            if stage.resize is not None:
                x = self.conv(x, getattr(stage, stage.resize)[0].conv)
        x = self.mid(x, e.mid_block)
        x = self.norm_conv(x, e.conv_norm_out, e.conv_out)
        x = self.pointwise(x, self.vae.quant_conv).float().permute(0, 4, 1, 2, 3)
        mean, logvar = x.chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z):
        """z as the encoder's mean: without scale and shift"""
        d = self.vae.decoder
        x = z.permute(0, 2, 3, 4, 1).to(self.dtype).contiguous()
        x = self.pointwise(x, self.vae.post_quant_conv)
        x = self.conv(x, d.conv_in)
        x = self.mid(x, d.mid_block)
        for stage in d.up_blocks:
            for r in stage.resnets:
                x = self.resnet(x, r)
            if stage.resize is not None:
                m = getattr(stage, stage.resize)[0]
                x = self.conv(x, m.conv, up=(m.factors[0], m.factors[1]))
        x = self.norm_conv(x, d.conv_norm_out, d.conv_out)
        return x.float().permute(0, 4, 1, 2, 3)


class Plain:
    """The module itself, under autocast: the fallback, and the truth for tests."""

    def __init__(self, vae, dtype=torch.float32, channels_last=False):
        self.vae, self.dtype, self.channels_last = vae, dtype, channels_last

    def _cast(self, x):
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        return x, torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def encode_moments(self, x):
        x, cast = self._cast(x)
        with cast:
            mean, logvar = self.vae.encode_moments(x)
        return mean.float(), logvar.float()

    def decode(self, z):
        z, cast = self._cast(z)
        c = self.vae.cfg
        with cast:
            return self.vae.decode((z - c.shift_factor) * c.scale_factor).float()
