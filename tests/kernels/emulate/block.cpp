// SPDX-License-Identifier: LGPL-2.1-or-later
/* A block: its threads are fibers, which switch where they wait. */
#include "machine.h"

#include <map>
#include <stdarg.h>
#include <stdexcept>
#include <sys/mman.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define OSR_WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OSR_WITH_ASAN 1
#endif
#endif
#ifdef OSR_WITH_ASAN
#include <sanitizer/asan_interface.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace osr_emulated
{

Block *block;
Thread *thread;

namespace
{

constexpr size_t STACK_SIZE = 512 * 1024; /* of address space; what is not used costs nothing */

char *stacks;
uint8_t *window; /* shared memory */
void *scheduler_stack_pointer;
const std::function<void()> *kernel_body;
std::string failure_text;
bool failed;

/* Which instances of the kernels' templates have run, how many blocks: printed at the end to the
 * file that OSR_EMULATED_REPORT names. */
struct Report : std::map<std::string, uint64_t> {
  ~Report()
  {
    const char *path = getenv("OSR_EMULATED_REPORT");
    FILE *f = path ? fopen(path, "a") : nullptr;

    for (const auto &i : *this)
      if (f)
        fprintf(f, "%8llu %s\n", (unsigned long long) i.second, i.first.c_str());
    if (f)
      fclose(f);
  }
} blocks_run;

std::string
format(const char *fmt, va_list args)
{
  char text[512];

  vsnprintf(text, sizeof text, fmt, args);
  return text;
}

/* --- fibers --- */

void thread_main(void);

#ifdef __x86_64__

/* Saves what a call must preserve, and goes on with another stack. */
extern "C" void osr_emulated_switch(void **save, void *to);
asm(".text\n"
    ".local osr_emulated_switch\n"
    ".type osr_emulated_switch, @function\n"
    "osr_emulated_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size osr_emulated_switch, . - osr_emulated_switch\n");

void *
new_stack(char *top)
{
  void **sp = (void **) top;

  *--sp = nullptr; /* keeps the stack aligned as behind a call */
  *--sp = (void *) thread_main;
  for (int i = 0; i < 6; i++)
    *--sp = nullptr;
  return sp;
}

void
switch_stacks(void **save, void *to)
{
  osr_emulated_switch(save, to);
}

#else

ucontext_t contexts[MAX_THREADS + 1];
int n_contexts; /* 0 is the scheduler's */

void *
new_stack(char *top)
{
  ucontext_t *c = &contexts[++n_contexts];

  getcontext(c);
  c->uc_stack.ss_sp = top - STACK_SIZE + 4096;
  c->uc_stack.ss_size = STACK_SIZE - 4096;
  c->uc_link = nullptr;
  makecontext(c, thread_main, 0);
  return c;
}

void
switch_stacks(void **save, void *to)
{
  if (!*save)
    *save = &contexts[0];
  swapcontext((ucontext_t *) *save, (ucontext_t *) to);
}

#endif

void
to_scheduler(void)
{
  switch_stacks(&thread->stack_pointer, scheduler_stack_pointer);
}

void
release(Barrier &b)
{
  for (Thread *t : b.waiting)
    wake(t);
  b.waiting.clear();
  b.here.clear();
  b.arrived = 0;
}

void
thread_main(void)
{
  (*kernel_body)();

  if (!thread->copies.empty())
    fail("ends while its cp.async is under way");
  if (!thread->products.empty())
    fail("ends while its wgmma is under way");
  thread->done = true;
  thread->warp->done |= 1u << thread->number % WARP;
  block->n_live--;
  /* __syncthreads() is among those who are still there. */
  if (block->barriers[0].arrived && block->barriers[0].expected == 0 &&
      block->barriers[0].arrived == block->n_live)
    release(block->barriers[0]);
  to_scheduler();
}

/* --- the schedule --- */

void
run_warp(Warp &warp)
{
  const int first = (int) chance(WARP);

  for (int i = 0; i < WARP && !failed; i++) {
    const int lane = (first + i) % WARP;

    if (!(warp.ready >> lane & 1))
      continue;
    warp.ready &= ~(1u << lane);
    thread = &block->threads[(size_t) (warp.number * WARP + lane)];
    threadIdx = thread->index;
    switch_stacks(&scheduler_stack_pointer, thread->stack_pointer);
    thread = nullptr;
  }
}

/* Lets the patient threads of one warp go on. */
bool
wake_patient(void)
{
  std::vector<Thread *> left;

  if (block->patient.empty())
    return false;
  const Warp *warp = block->patient[chance((uint32_t) block->patient.size())]->warp;

  for (Thread *t : block->patient)
    if (t->warp == warp)
      wake(t);
    else
      left.push_back(t);
  block->patient = left;
  return true;
}

/* One thing that the copy engine has to do, any. */
bool
run_event(void)
{
  if (block->events.empty())
    return false;
  const size_t i = chance((uint32_t) block->events.size());
  const Event event = block->events[i];

  block->events.erase(block->events.begin() + (long) i);
  event.run();
  return true;
}

/* What a thread waits for, with its numbers in the places of the "#". */
std::string
describe(const Reason &reason)
{
  std::string text;
  int n = 0;

  for (const char *c = reason.what; *c; c++)
    if (*c == '#')
      text += std::to_string(reason.numbers[n++]);
    else
      text += *c;
  return text;
}

[[noreturn]] void
report_deadlock(void)
{
  std::string text = "threads wait for ever:", last;

  for (const Thread &t : block->threads) {
    const std::string waits = t.done ? last : describe(t.waits);

    if (waits != last)
      text += " [from thread " + std::to_string(t.number) + " on: " + waits + "]";
    last = waits;
  }
  for (const MBarrier &b : block->mbarriers)
    if (!b.waiting.empty())
      text += " [mbarrier " + std::to_string(b.address) + ": " + std::to_string(b.pending) +
              " arrivals and " + std::to_string(b.bytes) + " bytes are missing]";
  for (int i = 0; i < MAX_BARRIERS; i++)
    if (block->barriers[i].arrived)
      text += " [barrier " + std::to_string(i) + ": " + std::to_string(block->barriers[i].arrived) +
              " of " + std::to_string(block->barriers[i].expected) + " are there]";
  throw std::runtime_error(text.substr(0, 900));
}

void
run_threads(void)
{
  const uint32_t n_warps = (uint32_t) block->warps.size();
  const uint32_t haste = chance(4) == 0 ? 8 : 0; /* some blocks have a quick copy engine */

  while (block->n_live > 0 && !failed) {
    const uint32_t first = chance(n_warps);
    bool ran = false;

    for (uint32_t i = 0; i < n_warps && !ran; i++) {
      Warp &warp = block->warps[(first + i) % n_warps];

      if (warp.ready) {
        run_warp(warp);
        ran = true;
      }
    }
    if (!ran) {
      const bool copies_first = chance(2) == 1;

      if (!(copies_first && run_event()) && !wake_patient() && !run_event())
        report_deadlock();
    }
    if (haste && chance(haste) == 0)
      run_event();
  }
  if (!failed && !block->events.empty())
    throw std::runtime_error("the block ends while copies into its shared memory are under way");
}

void
start_threads(dim3 dim)
{
  const int n = (int) (dim.x * dim.y * dim.z);

#ifndef __x86_64__
  n_contexts = 0;
#endif
  block->threads.resize((size_t) n);
  block->warps.resize((size_t) (n + WARP - 1) / WARP);
  for (size_t w = 0; w < block->warps.size(); w++) {
    block->warps[w] = {};
    block->warps[w].number = (int) w;
    block->warps[w].done = ALL_LANES;
  }
  for (int i = 0; i < n; i++) {
    Thread &t = block->threads[(size_t) i];

    t = {};
    t.number = i;
    t.index = { (unsigned) i % dim.x, (unsigned) i / dim.x % dim.y, (unsigned) i / dim.x / dim.y };
    t.warp = &block->warps[(size_t) i / WARP];
    t.warp->done &= ~(1u << i % WARP);
    t.stack_pointer = new_stack(stacks + (size_t) (i + 1) * STACK_SIZE);
    wake(&t);
  }
  block->n_live = n;
}

/* Dynamic memory lies behind the static one, wherever that ends: here at the end of the window,
 * but for some places of 16 bytes, so that nobody counts on more alignment than is declared. */
void
lay_out_shared(size_t size)
{
  uint32_t begin = SHARED_SIZE - (uint32_t) size;

  begin -= begin % 16;
  if (begin - SHARED_BEGIN >= MAX_STATIC / 2)
    begin -= 16 * chance(64);
  block->dynamic_begin = begin;
  block->dynamic_size = (uint32_t) size;
  block->static_end = SHARED_BEGIN;
  poison(begin, (uint32_t) size);
}

void
run_block(dim3 dim, size_t shared)
{
  block->warpgroup_products.resize(MAX_THREADS / 128);
  lay_out_shared(shared);
  start_threads(dim);
  run_threads();
}

} // namespace

uint32_t
chance(uint32_t n)
{
  static uint64_t state =
      getenv("OSR_EMULATED_SEED") ? strtoull(getenv("OSR_EMULATED_SEED"), nullptr, 0) * 2 + 1 : 1;

  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t) ((state >> 33) % n);
}

void
fail(const char *fmt, ...)
{
  va_list args;

  va_start(args, fmt);
  std::string text = format(fmt, args);
  va_end(args);
  if (!thread)
    throw std::runtime_error(text);
  failure_text = "thread " + std::to_string(thread->number) + ": " + text;
  failed = true;
  for (;;)
    to_scheduler();
}

bool
run_grid(dim3 grid, dim3 dim, size_t shared, const std::function<void()> &kernel,
         std::string *failure)
{
  const uint64_t n = (uint64_t) grid.x * grid.y * grid.z;
  /* Any order of blocks will do; they share nothing. */
  const bool backwards = chance(2) == 1;
  const char *name = "?";

  if (!stacks) {
    stacks = (char *) mmap(nullptr, MAX_THREADS * STACK_SIZE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    window = (uint8_t *) aligned_alloc(1024, SHARED_SIZE);
    if (stacks == MAP_FAILED || !window) {
      fprintf(stderr, "emulator: no memory for stacks\n");
      abort();
    }
    /* What lies below a stack stops whoever needs more. */
    for (int i = 0; i < MAX_THREADS; i++)
      mprotect(stacks + (size_t) i * STACK_SIZE, 4096, PROT_NONE);
  }
#ifdef OSR_WITH_ASAN
  /* Threads of a kernel that failed have not returned from their functions. */
  if (failed)
    ASAN_UNPOISON_MEMORY_REGION(stacks, MAX_THREADS * STACK_SIZE);
#endif
  kernel_body = &kernel;
  failed = false;
  gridDim = grid;
  blockDim = dim;
  for (uint64_t i = 0; i < n && !failed; i++) {
    const uint64_t at = backwards ? n - 1 - i : i;
    const std::unique_ptr<Block> b(new Block());

    block = b.get();
    blockIdx = { (unsigned) (at % grid.x), (unsigned) (at / grid.x % grid.y),
                 (unsigned) (at / grid.x / grid.y) };
    try {
      run_block(dim, shared);
    } catch (const std::runtime_error &error) {
      failure_text = error.what();
      failed = true;
    }
    if (failed && block->kernel)
      name = block->kernel;
    block = nullptr;
    thread = nullptr;
  }
  if (failed)
    *failure = std::string("kernel ") + name + ", block " + std::to_string(blockIdx.x) + ", " +
               std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + ": " + failure_text;
  return !failed;
}

void
enter(const char *kernel, const char *instance, int bound)
{
  block->kernel = kernel;
  if (thread->number == 0)
    blocks_run[instance]++;
  if ((int) block->threads.size() > bound)
    fail("%zu threads, the launch bound is %d", block->threads.size(), bound);
}

void
wait_for(const char *what, long long a, long long b, long long c, long long d)
{
  thread->waits = { what, { a, b, c, d } };
  to_scheduler();
}

void
wake(Thread *t)
{
  t->warp->ready |= 1u << t->number % WARP;
}

void
give_way(bool last)
{
  if (last)
    block->patient.push_back(thread);
  else
    wake(thread);
  wait_for("others to go first");
}

/* --- warps --- */

void
collective(const char *what, void *args, void (*f)(Warp *warp, void **args))
{
  Warp *warp = thread->warp;
  const uint32_t mine = 1u << thread->number % WARP;

  if (warp->done)
    fail("%s: lanes %08x of the warp have ended or never were", what, warp->done);
  if (warp->arrived && strcmp(warp->what, what) != 0)
    fail("%s: other lanes of the warp are at %s", what, warp->what);
  warp->what = what;
  warp->args[thread->number % WARP] = args;
  warp->arrived |= mine;
  if (warp->arrived != ALL_LANES) {
    wait_for(what);
    return;
  }
  warp->arrived = 0;
  f(warp, warp->args);
  warp->ready |= ALL_LANES & ~mine;
}

namespace
{

struct Shuffle {
  uint32_t mask;
  const void *mine;
  void *result;
  size_t size;
  int lane;
  bool xored;
};

void
run_shuffle(Warp *, void **args)
{
  for (int i = 0; i < WARP; i++) {
    const Shuffle *s = (const Shuffle *) args[i];
    const int from = s->xored ? i ^ s->lane : s->lane % WARP;

    if (s->mask != ALL_LANES || from < 0 || from >= WARP)
      fail("shuffle: mask %08x, lane %d", s->mask, s->lane);
    memcpy(s->result, ((const Shuffle *) args[from])->mine, s->size);
  }
}

struct Vote {
  bool mine, result;
};

void
run_any(Warp *, void **args)
{
  bool result = false;

  for (int i = 0; i < WARP; i++)
    result = result || ((Vote *) args[i])->mine;
  for (int i = 0; i < WARP; i++)
    ((Vote *) args[i])->result = result;
}

} // namespace

void
shuffle(uint32_t mask, const void *mine, void *result, size_t size, int lane, bool xored)
{
  Shuffle s = { mask, mine, result, size, lane, xored };

  collective(xored ? "__shfl_xor_sync" : "__shfl_sync", &s, run_shuffle);
}

bool
any(uint32_t mask, bool mine)
{
  Vote v = { mine, false };

  if (mask != ALL_LANES)
    fail("__any_sync: mask %08x", mask);
  collective("__any_sync", &v, run_any);
  return v.result;
}

/* --- barriers --- */

/* Section "barrier". With 0 threads all that have not ended take part. */
void
barrier(int id, int threads, bool wait)
{
  if (id < 0 || id >= MAX_BARRIERS || threads % WARP != 0)
    fail("barrier %d of %d threads", id, threads);
  Barrier &b = block->barriers[id];

  if (b.arrived > 0 && b.expected != threads)
    fail("barrier %d: %d threads, others said %d", id, threads, b.expected);
  b.here.resize(MAX_THREADS);
  if (b.here[(size_t) thread->number])
    fail("arrives twice at barrier %d", id);
  b.here[(size_t) thread->number] = true;
  b.expected = threads;
  b.arrived++;
  if (b.arrived == (threads ? threads : block->n_live)) {
    release(b);
  } else if (wait) {
    b.waiting.push_back(thread);
    wait_for("barrier #", id);
  }
}

void
sync_threads(void)
{
  barrier(0, 0, true);
}

/* --- shared memory --- */

void *
shared_allocate(const char *name, size_t size, size_t align)
{
  for (const auto &i : block->statics)
    if (i.first == name)
      return window + i.second;
  const uint32_t at =
      (block->static_end + (uint32_t) align - 1) / (uint32_t) align * (uint32_t) align;

  if (at + size > block->dynamic_begin || at + size - SHARED_BEGIN > MAX_STATIC ||
      at + size - SHARED_BEGIN + block->dynamic_size > MAX_SHARED)
    fail("shared memory: %zu bytes for %s are too many", size, name);
  block->static_end = at + (uint32_t) size;
  poison(at, (uint32_t) size);
  block->statics.emplace_back(name, at);
  return window + at;
}

void *
shared_dynamic(size_t declared, size_t align)
{
  const uint32_t to = (uint32_t) (declared > align ? declared : align);
  const uint32_t at = block->dynamic_begin;

  /* What is declared is given. It moves down, so that the end stays inside. */
  if (to > 16 && at % to != 0) {
    if (at - at % to < block->static_end)
      fail("shared memory: no place for an alignment of %u", to);
    block->dynamic_begin = at - at % to;
    poison(block->dynamic_begin, at % to);
  }
  return window + block->dynamic_begin;
}

size_t
shared_address(const void *p)
{
  const uint8_t *at = (const uint8_t *) p;

  if (at < window || at > window + SHARED_SIZE)
    fail("__cvta_generic_to_shared() of an address that is not in shared memory");
  return (size_t) (at - window);
}

uint8_t *
shared_bytes(uint32_t address, uint32_t size, uint32_t align, const char *what)
{
  const uint64_t end = (uint64_t) address + size;

  if (address % align != 0)
    fail("%s: shared address 0x%x is no multiple of %u", what, address, align);
  if (!(address >= SHARED_BEGIN && end <= block->static_end) &&
      !(address >= block->dynamic_begin && end <= block->dynamic_begin + block->dynamic_size))
    fail("%s: shared memory from 0x%x on, %u bytes; there is 0x%x to 0x%x, 0x%x to 0x%x", what,
         address, size, SHARED_BEGIN, block->static_end, block->dynamic_begin,
         block->dynamic_begin + block->dynamic_size);
  return window + address;
}

/* A NaN in every type. */
void
poison(uint32_t address, uint32_t size)
{
  memset(window + address, 0xFF, size);
}

} // namespace osr_emulated
