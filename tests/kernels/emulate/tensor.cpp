// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Matrix instructions. Layouts are from the sections named, g = lane / 4 and t = lane % 4:
 *
 * ldmatrix ("Warp-level matrix load instruction: ldmatrix")
 *   lanes 8 i to 8 i + 7 have the addresses of the rows of matrix i; the lane gets elements
 *   (g, 2 t) and (g, 2 t + 1) of it, with .trans (2 t, g) and (2 t + 1, g).
 * mma.m16n8k16, bf16 ("Matrix Fragments for mma.m16n8k16 with floating point type")
 *   A, elements i of 8: row g for i = 0, 1, 4, 5, else g + 8; column 2 t + i % 2, 8 more from
 *   i = 4 on. B, i of 4: row 2 t + i % 2, 8 more from i = 2 on; column g.
 *   C, D, i of 4: row g, from i = 2 on g + 8; column 2 t + i % 2.
 * mma.m16n8k8, tf32 ("Matrix Fragments for mma.m16n8k8")
 *   A, i of 4: row g for i = 0, 2, else g + 8; column t, 4 more from i = 2 on.
 *   B, i of 2: row t, 4 more for i = 1; column g. C, D as above.
 * wgmma.m64nNk16 ("Register Fragments and Shared Memory Matrix Layouts")
 *   warp w of the warpgroup has rows 16 w to 16 w + 15; A in registers as mma.m16n8k16's; D,
 *   element i of N / 2: row g + 8 (i / 2 % 2), column 8 (i / 4) + 2 t + i % 2.
 * Matrix descriptors ("Matrix Descriptor Format", "Shared Memory Matrix Layout", "Strides")
 *   bits 0-13 start address, 16-29 leading dimension byte offset (LBO), 32-45 stride dimension
 *   byte offset (SBO), all / 16; 49-51 base offset; 62-63 swizzle: 0 none, 1 128, 2 64, 3 32
 *   bytes.
 *   Swizzled, K-major: rows of W bytes, the swizzle's, 8 in a group; SBO from group to group, LBO
 *   not used. Swizzled, MN-major: W / 2 of m or n lie in a row, 8 of k one below the other; LBO to
 *   the next W / 2 of m or n, SBO to the next 8 of k. Addresses are swizzled as a whole.
 *   None, K-major: 8 x 8 matrices of 128 bytes; LBO to the next 8 of k, SBO to the next 8 rows.
 */
#include "machine.h"

namespace osr_emulated
{

namespace
{

float
bf16(uint32_t word, int half)
{
  return from_bits(half ? word & 0xFFFF0000u : word << 16);
}

} // namespace

/* --- ldmatrix --- */

namespace
{

struct Load {
  uint32_t *const *r;
  uint32_t address;
  bool trans;
};

void
run_load(Warp *, void **args)
{
  uint16_t rows[4][8][8];

  for (int i = 0; i < WARP; i++)
    memcpy(rows[i / 8][i % 8], shared_bytes(((Load *) args[i])->address, 16, 16, "ldmatrix"), 16);
  for (int lane = 0; lane < WARP; lane++) {
    const Load *l = (const Load *) args[lane];
    const int g = lane / 4, t = lane % 4;

    for (int i = 0; i < 4; i++) {
      const uint16_t low = l->trans ? rows[i][2 * t][g] : rows[i][g][2 * t];
      const uint16_t high = l->trans ? rows[i][2 * t + 1][g] : rows[i][g][2 * t + 1];

      *l->r[i] = (uint32_t) low | (uint32_t) high << 16;
    }
  }
}

} // namespace

void
load_matrices(uint32_t *const r[4], uint32_t address, bool trans)
{
  Load l = { r, address, trans };

  collective(trans ? "ldmatrix.trans" : "ldmatrix", &l, run_load);
}

/* --- mma.sync --- */

namespace
{

struct Mma {
  float *const *d;
  const uint32_t *a, *b;
};

/* d += a b; sums as exact as a double is, rounded once an instruction. */
template <int K>
void
multiply(void **args, const float (*a)[K], const float (*b)[8])
{
  for (int lane = 0; lane < WARP; lane++)
    for (int i = 0; i < 4; i++) {
      const int row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
      float *d = ((Mma *) args[lane])->d[i];
      double sum = *d;

      for (int k = 0; k < K; k++)
        sum += (double) a[row][k] * b[k][column];
      *d = (float) sum;
    }
}

void
run_mma_bf16(Warp *, void **args)
{
  float a[16][16], b[16][8];

  for (int lane = 0; lane < WARP; lane++) {
    const Mma *m = (const Mma *) args[lane];
    const int g = lane / 4, t = lane % 4;

    for (int i = 0; i < 8; i++)
      a[i / 2 % 2 ? g + 8 : g][2 * t + i % 2 + (i >= 4 ? 8 : 0)] = bf16(m->a[i / 2], i % 2);
    for (int i = 0; i < 4; i++)
      b[2 * t + i % 2 + (i >= 2 ? 8 : 0)][g] = bf16(m->b[i / 2], i % 2);
  }
  multiply<16>(args, a, b);
}

/* The tensor cores do not look at the lower 13 bits. */
float
tf32(uint32_t bits)
{
  return from_bits(bits & 0xFFFFE000u);
}

void
run_mma_tf32(Warp *, void **args)
{
  float a[16][8], b[8][8];

  for (int lane = 0; lane < WARP; lane++) {
    const Mma *m = (const Mma *) args[lane];
    const int g = lane / 4, t = lane % 4;

    for (int i = 0; i < 4; i++)
      a[i % 2 ? g + 8 : g][t + (i >= 2 ? 4 : 0)] = tf32(m->a[i]);
    for (int i = 0; i < 2; i++)
      b[t + 4 * i][g] = tf32(m->b[i]);
  }
  multiply<8>(args, a, b);
}

} // namespace

void
mma_bf16(float *const d[4], const uint32_t a[4], const uint32_t b[2])
{
  Mma m = { d, a, b };

  collective("mma.m16n8k16", &m, run_mma_bf16);
}

void
mma_tf32(float *const d[4], const uint32_t a[4], const uint32_t b[2])
{
  Mma m = { d, a, b };

  collective("mma.m16n8k8", &m, run_mma_tf32);
}

/* --- wgmma --- */

namespace
{

struct Descriptor {
  uint32_t start, leading, stride, row_bytes; /* 0: no swizzle */
};

Descriptor
decode(uint64_t desc)
{
  static const uint32_t rows[4] = { 0, 128, 64, 32 };
  const Descriptor d = { (uint32_t) (desc & 0x3FFF) << 4, (uint32_t) (desc >> 16 & 0x3FFF) << 4,
                         (uint32_t) (desc >> 32 & 0x3FFF) << 4, rows[desc >> 62] };

  if (desc >> 49 & 7)
    fail("wgmma: a base offset is not emulated");
  if (desc & 0x3FF1C000C000C000u)
    fail("wgmma: descriptor %016llx has bits without a meaning", (unsigned long long) desc);
  return d;
}

/* Element (mn, k); neighbours along the major axis follow it up to the end of 16 bytes. */
uint32_t
element_address(const Descriptor &d, bool mn_major, uint32_t mn, uint32_t k)
{
  if (d.row_bytes == 0) {
    if (mn_major)
      fail("wgmma: MN-major without a swizzle is not emulated");
    return d.start + mn / 8 * d.stride + k / 8 * d.leading + mn % 8 * 16 + k % 8 * 2;
  }
  if (!mn_major)
    return swizzled(d.start + mn / 8 * d.stride + mn % 8 * d.row_bytes + k * 2, d.row_bytes);
  const uint32_t across = d.row_bytes / 2;

  return swizzled(d.start + mn / across * d.leading + k / 8 * d.stride + k % 8 * d.row_bytes +
                      mn % across * 2,
                  d.row_bytes);
}

/* to[k][mn] of `count` rows (or columns) from `first` on, 16 of k. */
void
read_operand(uint64_t desc, bool mn_major, uint32_t first, uint32_t count, float *to)
{
  const Descriptor d = decode(desc);
  const uint32_t step_mn = mn_major ? 8 : 1, step_k = mn_major ? 1 : 8;

  for (uint32_t mn = 0; mn < count; mn += step_mn)
    for (uint32_t k = 0; k < 16; k += step_k) {
      uint16_t piece[8];

      memcpy(piece,
             shared_bytes(element_address(d, mn_major, first + mn, k), 16, 16, "wgmma operand"),
             16);
      for (uint32_t i = 0; i < 8; i++)
        to[(mn_major ? k : k + i) * count + (mn_major ? mn + i : mn)] =
            from_bits((uint32_t) piece[i] << 16);
    }
}

/* A warp's 16 rows of a product. */
void
run_product(Warp *warp, Product *const lanes[WARP])
{
  const Product &p = *lanes[0];
  const uint32_t n = (uint32_t) p.n, row = (uint32_t) warp->number % 4 * 16;
  static std::vector<float> b, sums;
  float a[16][16]; /* [k][row] */
  std::vector<std::pair<uint64_t, uint64_t>> &others =
      block->warpgroup_products[(size_t) warp->number / 4];

  if (others.size() <= p.number)
    others.push_back({ p.a ? 0 : p.a_desc, p.b_desc });
  if (others[p.number] != std::make_pair(p.a ? 0 : p.a_desc, p.b_desc))
    fail("wgmma: the warps of a warpgroup have different descriptors");

  b.resize(16 * n);
  sums.assign(16 * n, 0.0f);
  read_operand(p.b_desc, p.b_trans, 0, n, b.data());
  if (p.a) {
    for (int lane = 0; lane < WARP; lane++)
      for (int i = 0; i < 8; i++)
        a[2 * (lane % 4) + i % 2 + (i >= 4 ? 8 : 0)][lane / 4 + (i / 2 % 2 ? 8 : 0)] =
            bf16(lanes[lane]->a[i / 2], i % 2);
  } else {
    read_operand(p.a_desc, p.a_trans, row, 16, a[0]);
  }
  for (uint32_t k = 0; k < 16; k++)
    for (uint32_t r = 0; r < 16; r++) {
      const float factor = a[k][r];
      const float *from = &b[k * n];
      float *to = &sums[r * n];

      for (uint32_t i = 0; i < n; i++)
        to[i] += factor * from[i];
    }
  for (int lane = 0; lane < WARP; lane++)
    for (uint32_t i = 0; i < n / 2; i++) {
      const uint32_t r = (uint32_t) lane / 4 + i / 2 % 2 * 8;
      const uint32_t c = i / 4 * 8 + (uint32_t) lane % 4 * 2 + i % 2;
      float &d = (*lanes[lane]->sum)[i];

      d = (p.add ? d : 0.0f) + sums[r * n + c];
    }
}

struct Wait {
  Thread *thread;
  uint64_t left;
};

bool
is_last_of(const Thread *t, const float *d)
{
  for (size_t i = 1; i < t->products.size(); i++)
    if (t->products[i].d == d)
      return false;
  return true;
}

void
run_wait(Warp *warp, void **args)
{
  const Wait *first = (const Wait *) args[0];

  for (;;) {
    Product *lanes[WARP];
    const Thread *t = first->thread;

    if (t->products.empty() || t->products.front().group + first->left >= t->product_group)
      break;
    for (int i = 0; i < WARP; i++) {
      const Wait *w = (const Wait *) args[i];

      if (w->left != first->left || w->thread->products.size() != t->products.size() ||
          w->thread->product_group != t->product_group)
        fail("wgmma.wait_group: lanes of the warp have issued different products");
      lanes[i] = &w->thread->products.front();
      if (lanes[i]->a_desc != lanes[0]->a_desc || lanes[i]->b_desc != lanes[0]->b_desc ||
          lanes[i]->n != lanes[0]->n || lanes[i]->add != lanes[0]->add ||
          !lanes[i]->a != !lanes[0]->a)
        fail("wgmma: lanes of the warp have different operands");
    }
    run_product(warp, lanes);
    for (int i = 0; i < WARP; i++) {
      Thread *owner = ((const Wait *) args[i])->thread;
      const Product &p = owner->products.front();

      if (is_last_of(owner, p.d))
        memcpy(p.d, p.sum->data(), p.sum->size() * sizeof(float));
      owner->products.pop_front();
    }
  }
}

} // namespace

void
wgmma_fence(void)
{
  thread->fenced = true;
}

void
wgmma_issue(const Product &issued)
{
  Product p = issued;

  if (!thread->fenced)
    fail("wgmma.mma_async: no wgmma.fence after registers were written");
  if (block->threads.size() % 128 != 0)
    fail("wgmma.mma_async: the block is not made of warpgroups");
  for (const Product &other : thread->products)
    if (other.d == p.d)
      p.sum = other.sum;
  if (!p.sum) {
    p.sum = std::make_shared<std::vector<float>>(p.d, p.d + p.n / 2);
    for (int i = 0; i < p.n / 2; i++)
      p.d[i] = NAN;
  }
  p.group = thread->product_group;
  p.number = thread->n_products++;
  thread->products.push_back(p);
}

void
wgmma_commit(void)
{
  thread->product_group++;
}

/* Each warp waits for itself: it knows nothing of the other three's reads of shared memory. Its
 * own are made as late as they may be, or almost at once. */
void
wgmma_wait(uint64_t left)
{
  Wait w = { thread, left };

  if (chance(16) != 0)
    give_way(true);
  collective("wgmma.wait_group", &w, run_wait);
  thread->fenced = false;
}

bool
wgmma_owns(const void *p)
{
  for (const Product &i : thread->products)
    if ((p >= i.d && p < i.d + i.n / 2) || (i.a && p >= i.a && p < i.a + 4))
      return true;
  return false;
}

} // namespace osr_emulated
