// SPDX-License-Identifier: LGPL-2.1-or-later
/* mbarriers and asynchronous copies. */
#include "machine.h"

#include <cuda.h>

namespace osr_emulated
{

/* --- cp.async: section "Asynchronous Data Movement: Non-bulk copy" --- */

namespace
{

void
deliver(const ThreadCopy &c)
{
  uint8_t *to = shared_bytes(c.to, c.size, 1, "cp.async");

  memcpy(to, c.from, c.bytes);
  memset(to + c.bytes, 0, c.size - c.bytes);
}

} // namespace

void
copy_async(uint32_t to, const void *from, uint32_t size, uint32_t bytes)
{
  shared_bytes(to, size, size, "cp.async");
  if ((uintptr_t) from % size != 0 || bytes > size)
    fail("cp.async: %u of %u bytes from %p", bytes, size, from);
  poison(to, size);
  thread->copies.push_back({ to, from, size, bytes, thread->copy_group, ++thread->n_copies });
}

void
copy_commit(void)
{
  thread->copy_group++;
}

void
copy_wait(uint64_t left)
{
  while (!thread->copies.empty() && thread->copies.front().group + left < thread->copy_group) {
    deliver(thread->copies.front());
    thread->copies.pop_front();
  }
}

void
copy_wait_all(void)
{
  for (const ThreadCopy &c : thread->copies)
    deliver(c);
  thread->copies.clear();
}

/* --- mbarrier: section "mbarrier" ---
 *
 * A phase is complete when no arrival is pending and all bytes that were expected have come.
 * test_wait/try_wait with a parity: whether the phase of that parity is complete; the phase
 * before the first one counts as complete, with parity 1. */

namespace
{

MBarrier &
find(uint32_t address)
{
  shared_bytes(address, 8, 8, "mbarrier");
  for (MBarrier &b : block->mbarriers)
    if (b.address == address)
      return b;
  fail("mbarrier at 0x%x is not initialised", address);
}

void
look(MBarrier &b)
{
  if (b.pending > 0 || b.bytes != 0)
    return;
  b.phase++;
  b.pending = b.expected;
  for (Thread *t : b.waiting)
    wake(t);
  b.waiting.clear();
}

void
arrive(MBarrier &b)
{
  if (b.pending <= 0)
    fail("mbarrier at 0x%x: more than %d arrivals in a phase", b.address, b.expected);
  b.pending--;
  look(b);
}

void
complete(uint32_t address, uint32_t bytes)
{
  MBarrier &b = find(address);

  b.bytes -= bytes;
  look(b);
}

} // namespace

void
mbarrier_init(uint32_t address, int expected)
{
  shared_bytes(address, 8, 8, "mbarrier.init");
  for (MBarrier &b : block->mbarriers)
    if (b.address == address)
      fail("mbarrier at 0x%x is initialised twice", address);
  if (expected < 1 || expected >= 1 << 20)
    fail("mbarrier.init: %d arrivals", expected);
  block->mbarriers.push_back({ address, expected, expected, 0, 0, {} });
}

void
mbarrier_arrive(uint32_t address)
{
  arrive(find(address));
  if (chance(4) == 0)
    give_way(false);
}

void
mbarrier_expect(uint32_t address, uint32_t bytes)
{
  find(address).bytes += bytes;
}

bool
mbarrier_passed(uint32_t address, uint32_t parity)
{
  if (parity > 1)
    fail("mbarrier.try_wait: parity %u", parity);
  return (find(address).phase & 1) != parity;
}

/* The phase is looked at when this thread is scheduled, not when it is woken: one that is over
 * meanwhile, and the next too, is missed, as it would be by a thread that polls. */
void
mbarrier_wait(uint32_t address, uint32_t parity)
{
  while (!mbarrier_passed(address, parity)) {
    MBarrier &b = find(address);

    b.waiting.push_back(thread);
    wait_for("mbarrier #, parity #", address, parity);
  }
}

/* cp.async.mbarrier.arrive.noinc: arrives when this thread's copies so far are there. */
void
copy_arrive(uint32_t address)
{
  Thread *owner = thread;
  const uint64_t last = owner->n_copies;

  find(address);
  block->events.push_back({ [=] {
    while (!owner->copies.empty() && owner->copies.front().number <= last) {
      deliver(owner->copies.front());
      owner->copies.pop_front();
    }
    arrive(find(address));
  } });
}

/* --- the copy engine: section "cp.async.bulk" --- */

void
bulk_copy(uint32_t to, const void *from, uint32_t bytes, uint32_t mbarrier)
{
  shared_bytes(to, bytes, 16, "cp.async.bulk");
  if ((uintptr_t) from % 16 != 0 || bytes % 16 != 0)
    fail("cp.async.bulk: %u bytes from %p", bytes, from);
  find(mbarrier);
  poison(to, bytes);
  block->events.push_back({ [=] {
    memcpy(shared_bytes(to, bytes, 16, "cp.async.bulk"), from, bytes);
    complete(mbarrier, bytes);
  } });
}

/* --- tensor maps: the driver's cuTensorMapEncodeTiled, section "Tensors" of the PTX ISA --- */

namespace
{

constexpr uint64_t MAP_MAGIC = 0x70616D726F736E74u;
constexpr int RANK = 5;

struct TensorMap {
  uint64_t magic;
  const uint8_t *data;
  uint32_t rank, element, swizzle;
  uint32_t size[RANK], box[RANK];
  uint64_t stride[RANK]; /* bytes; [0] is the element's */
};

static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap), "fits");

/* The limits are those that the driver's manual gives. */
CUresult
encode_tiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *data,
             const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
             const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
             CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill)
{
  static const uint32_t most_inner[] = { UINT32_MAX, 32, 64, 128 };
  TensorMap m = {};

  if (type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || rank < 1 || rank > RANK ||
      (uintptr_t) data % 16 != 0 || (uintptr_t) map % 64 != 0 ||
      interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE ||
      (uint32_t) swizzle > 3)
    return CUDA_ERROR_INVALID_VALUE;
  m.magic = MAP_MAGIC;
  m.data = (const uint8_t *) data;
  m.rank = rank;
  m.element = 2;
  m.swizzle = (uint32_t) swizzle;
  m.stride[0] = m.element;
  for (uint32_t i = 0; i < rank; i++) {
    if (sizes[i] == 0 || sizes[i] > UINT32_MAX || box[i] == 0 || box[i] > 256 || steps[i] != 1)
      return CUDA_ERROR_INVALID_VALUE;
    m.size[i] = (uint32_t) sizes[i];
    m.box[i] = box[i];
    if (i == 0)
      continue;
    m.stride[i] = strides[i - 1];
    if (m.stride[i] % 16 != 0 || m.stride[i] >= (uint64_t) 1 << 40)
      return CUDA_ERROR_INVALID_VALUE;
  }
  if (m.box[0] * m.element % 16 != 0 || m.box[0] * m.element > most_inner[m.swizzle])
    return CUDA_ERROR_INVALID_VALUE;
  memset(map, 0, sizeof *map);
  memcpy(map, &m, sizeof m);
  return CUDA_SUCCESS;
}

/* The box, dense, innermost first; zeros outside of the tensor. */
void
copy_box(uint32_t to, const TensorMap &m, const int32_t *at)
{
  uint32_t n = 1;

  for (uint32_t d = 0; d < m.rank; d++)
    n *= m.box[d];
  for (uint32_t i = 0; i < n; i++) {
    const uint8_t *from = m.data;
    bool inside = true;

    for (uint32_t d = 0, rest = i; d < m.rank; d++) {
      const int64_t x = (int64_t) at[d] + rest % m.box[d];

      rest /= m.box[d];
      inside = inside && x >= 0 && x < (int64_t) m.size[d];
      from += x * (int64_t) m.stride[d];
    }
    uint8_t *dst =
        shared_bytes(swizzled(to + i * m.element, 16u << m.swizzle), m.element, 1, "TMA");

    if (inside)
      memcpy(dst, from, m.element);
    else
      memset(dst, 0, m.element);
  }
}

} // namespace

void *
encode_tiled_address(void)
{
  return (void *) encode_tiled;
}

void
tensor_copy(uint32_t to, const void *map, const int32_t *at, int rank, uint32_t mbarrier)
{
  TensorMap m;
  uint32_t bytes;
  std::vector<int32_t> corner(at, at + rank);

  memcpy(&m, map, sizeof m);
  if (m.magic != MAP_MAGIC || (int) m.rank != rank)
    fail("TMA: no tensor map of rank %d", rank);
  bytes = m.element;
  for (int i = 0; i < rank; i++)
    bytes *= m.box[i];
  shared_bytes(to, bytes, 128, "TMA");
  find(mbarrier);
  poison(to, bytes);
  block->events.push_back({ [=] {
    copy_box(to, m, corner.data());
    complete(mbarrier, bytes);
  } });
}

} // namespace osr_emulated
