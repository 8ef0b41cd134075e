/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * machine.h: the parts of the emulated multiprocessor.
 *
 *   block.cpp    threads as fibers, warps, barriers, shared memory
 *   async.cpp    mbarriers, asynchronous copies, the copy engine and its tensor maps
 *   tensor.cpp   ldmatrix, mma.sync, wgmma
 *   ptx.cpp      inline PTX
 *   runtime.cpp  the CUDA runtime: memory, streams, events, graphs, launches
 *   lt.cpp       cuBLASLt
 *
 * What is asynchronous on the device is done as late as it may be: a copy's bytes come when
 * somebody waits for them and nobody else can go on (now and then earlier, by chance), products
 * of wgmma read their operands when they are waited for. Until then the places that they will
 * write hold NaN. Which warp goes on is left to chance too. So a wait that is missing gives a
 * wrong result here, where a GPU might hide it.
 *
 * Section numbers are those of the PTX ISA 8.x manual by name of the section.
 */
#ifndef OSR_EMULATE_MACHINE_H
#define OSR_EMULATE_MACHINE_H

#include "emulate.h"

#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace osr_emulated
{

constexpr int WARP = 32, MAX_THREADS = 1024, MAX_BARRIERS = 16;
constexpr uint32_t ALL_LANES = 0xFFFFFFFFu;
/* Shared memory: a window of 228 KiB, whose first KiB belongs to the system (sm_90); a block may
 * have 227 KiB, and 48 KiB of it static. */
constexpr uint32_t SHARED_SIZE = 228 * 1024, SHARED_BEGIN = 1024;
constexpr uint32_t MAX_SHARED = 227 * 1024, MAX_STATIC = 48 * 1024;

struct Warp;

/* cp.async of a thread. */
struct ThreadCopy {
  uint32_t to;
  const void *from;
  uint32_t size, bytes; /* bytes of the source, the rest is zeros */
  uint64_t group, number;
};

/* wgmma.mma_async of a thread. */
struct Product {
  float *d;
  /* The sum while products on it are under way: d itself holds NaN. */
  std::shared_ptr<std::vector<float>> sum;
  const uint32_t *a; /* in registers, or NULL */
  uint64_t a_desc, b_desc;
  int n;
  bool add, a_trans, b_trans;
  uint64_t group, number;
};

/* Why a thread waits: a text, and the numbers that belong in the places of its "#". */
struct Reason {
  const char *what;
  long long numbers[4];
};

struct Thread {
  int number;
  uint3 index;
  Warp *warp;
  void *stack_pointer;
  bool done;
  Reason waits; /* for what, when it is not ready */

  std::deque<ThreadCopy> copies;
  uint64_t copy_group, n_copies;
  std::deque<Product> products;
  uint64_t product_group, n_products;
  bool fenced; /* wgmma.fence since the last wait */
};

struct Warp {
  int number;
  uint32_t ready, done, arrived;
  const char *what; /* the collective that lanes have arrived at */
  void *args[WARP];
};

/* bar.sync, bar.arrive */
struct Barrier {
  int expected, arrived;
  std::vector<bool> here;
  std::vector<Thread *> waiting;
};

/* mbarrier: section "Parallel Synchronization and Communication Instructions: mbarrier". */
struct MBarrier {
  uint32_t address;
  int expected, pending;
  int64_t bytes;
  uint32_t phase;
  std::vector<Thread *> waiting;
};

/* What the copy engine, or the end of a thread's copies, has yet to do. */
struct Event {
  std::function<void()> run;
};

struct Block {
  const char *kernel;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  int n_live;
  Barrier barriers[MAX_BARRIERS];
  std::deque<MBarrier> mbarriers;
  std::vector<Event> events;
  std::vector<Thread *> patient; /* who let all others go first */
  uint32_t dynamic_begin, dynamic_size, static_end;
  std::vector<std::pair<std::string, uint32_t>> statics;
  /* wgmma: descriptors of a warpgroup's products in their order, to compare its warps. */
  std::vector<std::vector<std::pair<uint64_t, uint64_t>>> warpgroup_products;
};

extern Block *block;   /* at work now */
extern Thread *thread; /* of it; NULL where the machine itself is at work */

/* Runs a whole grid. False, with the message in `failure`, when a thread did what it must not. */
bool run_grid(dim3 grid, dim3 block_dim, size_t shared, const std::function<void()> &kernel,
              std::string *failure);

/* Ends the kernel: names it, the block and the thread. Does not return. */
[[noreturn]] void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Another number by chance; the seed is OSR_EMULATED_SEED, 1 if not set. */
uint32_t chance(uint32_t n);

/* Gives way until another calls wake(). */
void wait_for(const char *what, long long a = 0, long long b = 0, long long c = 0, long long d = 0);
void wake(Thread *t);
/* Gives way: to any other warp, or (`last`) until nobody else can go on. */
void give_way(bool last);

/* All lanes of a warp come here with their arguments; the last one runs `f` on all of them. */
void collective(const char *what, void *args, void (*f)(Warp *warp, void **args));

void barrier(int id, int threads, bool wait);

/* `size` bytes of shared memory at `address`, which must be a multiple of `align`. */
uint8_t *shared_bytes(uint32_t address, uint32_t size, uint32_t align, const char *what);
void poison(uint32_t address, uint32_t size);

/* Section "Swizzling Modes": pieces of 16 bytes change places inside of 128 (64, 32) bytes, by the
 * number of the 128-byte row: address bits 4 to 6 (5, 4) ^= bits 7 to 9 (8, 7). */
static inline uint32_t
swizzled(uint32_t address, uint32_t row_bytes)
{
  return address ^ ((address >> 7 & (row_bytes / 16 - 1)) << 4);
}

/* --- async.cpp --- */

void copy_async(uint32_t to, const void *from, uint32_t size, uint32_t bytes);
void copy_commit(void);
void copy_wait(uint64_t left); /* groups that may still be under way */
void copy_wait_all(void);
void copy_arrive(uint32_t mbarrier);
void mbarrier_init(uint32_t address, int expected);
void mbarrier_arrive(uint32_t address);
void mbarrier_expect(uint32_t address, uint32_t bytes);
bool mbarrier_passed(uint32_t address, uint32_t parity);
void mbarrier_wait(uint32_t address, uint32_t parity);
void bulk_copy(uint32_t to, const void *from, uint32_t bytes, uint32_t mbarrier);
void tensor_copy(uint32_t to, const void *map, const int32_t *at, int rank, uint32_t mbarrier);
/* cuTensorMapEncodeTiled */
void *encode_tiled_address(void);

/* --- tensor.cpp --- */

void load_matrices(uint32_t *const r[4], uint32_t address, bool trans);
void mma_bf16(float *const d[4], const uint32_t a[4], const uint32_t b[2]);
void mma_tf32(float *const d[4], const uint32_t a[4], const uint32_t b[2]);
void wgmma_fence(void);
void wgmma_issue(const Product &p);
void wgmma_commit(void);
void wgmma_wait(uint64_t left);
/* Whether a register is one that a product under way will write or reads. */
bool wgmma_owns(const void *p);

} // namespace osr_emulated

#endif /* OSR_EMULATE_MACHINE_H */
