/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * emulate.h: what translated kernels (translate.py) are written in.
 *
 * Kernels run on the host, a block after the other, the threads of a block as fibers that switch
 * only where they wait for each other (block.cpp). Inline PTX is interpreted (ptx.cpp).
 */
#ifndef OSR_EMULATE_H
#define OSR_EMULATE_H

/* As when nvcc compiles for sm_90a. */
#define __CUDA_ARCH_FEAT_SM90_ALL 1

#include "cuda_runtime_api.h"
#include "small-floats.h"

#include <functional>
#include <initializer_list>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)

/* --- vector types --- */

#define OSR_VECTOR2(type, element)                                                                 \
  struct alignas(2 * sizeof(element)) type {                                                       \
    element x, y;                                                                                  \
  };                                                                                               \
  static inline type make_##type(element x, element y)                                             \
  {                                                                                                \
    return { x, y };                                                                               \
  }
#define OSR_VECTOR4(type, element)                                                                 \
  struct alignas(4 * sizeof(element)) type {                                                       \
    element x, y, z, w;                                                                            \
  };                                                                                               \
  static inline type make_##type(element x, element y, element z, element w)                       \
  {                                                                                                \
    return { x, y, z, w };                                                                         \
  }

OSR_VECTOR2(float2, float)
OSR_VECTOR2(uint2, unsigned)
OSR_VECTOR4(float4, float)
OSR_VECTOR4(uint4, unsigned)
OSR_VECTOR4(uchar4, unsigned char)

struct uint3 {
  unsigned x, y, z;
};

/* Where the thread at work is. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace osr_emulated
{

/* --- launches --- */

/* The first thing that a thread of a kernel does: `bound` is that of __launch_bounds__. */
void enter(const char *kernel, const char *instance, int bound);

void enqueue_kernel(dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                    std::function<void()> thread);

/* <<<...>>>; the arguments are copied at the launch, as CUDA does. */
struct Launch {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;

  template <typename Kernel, typename... Args> void operator()(Kernel kernel, Args... args) const
  {
    enqueue_kernel(grid, block, shared, stream, [=] { kernel(args...); });
  }
};

static inline Launch
launch(dim3 grid, dim3 block, size_t shared = 0, cudaStream_t stream = nullptr)
{
  return { grid, block, shared, stream };
}

/* Kernels by their addresses: how to call one with an array of pointers to its arguments. */
typedef std::function<void()> (*Binder)(const void *kernel, void **args);
void remember_kernel(const void *kernel, Binder binder);

template <typename... Params, size_t... I>
std::function<void()>
bind_kernel(void (*kernel)(Params...), void **args, std::index_sequence<I...>)
{
  return [kernel, values = std::make_tuple(*(std::remove_const_t<Params> *) args[I]...)] {
    std::apply(kernel, values);
  };
}

template <typename... Params>
const void *
address(void (*kernel)(Params...))
{
  const void *pointer = (const void *) kernel;

  remember_kernel(pointer, [](const void *k, void **args) {
    return bind_kernel((void (*)(Params...)) k, args, std::index_sequence_for<Params...>());
  });
  return pointer;
}

/* --- shared memory --- */

/* Both are offsets in the window of shared memory, which begins at address 0. */
void *shared_allocate(const char *name, size_t size, size_t align);
void *shared_dynamic(size_t declared, size_t align);
size_t shared_address(const void *p);

template <typename T>
T &
shared_static(const char *name, size_t align)
{
  return *(T *) shared_allocate(name, sizeof(T), align > alignof(T) ? align : alignof(T));
}

/* --- threads together --- */

void sync_threads(void);
void shuffle(uint32_t mask, const void *mine, void *result, size_t size, int lane, bool xored);
bool any(uint32_t mask, bool mine);

/* --- inline PTX --- */

/* An operand of asm(): where the value lies, or the value. */
struct Operand {
  void *at;
  uint64_t value;
  unsigned size;
};

template <typename T>
static inline Operand
ptx_out(T &v)
{
  return { &v, 0, sizeof v };
}

template <typename T>
static inline Operand
ptx_in(T &&v)
{
  Operand o = { nullptr, 0, sizeof v };

  static_assert(sizeof v <= 8, "an operand is a register");
  memcpy(&o.value, &v, sizeof v);
  if (std::is_lvalue_reference<T>::value)
    o.at = (void *) &v;
  return o;
}

struct Program;
const Program *ptx_parse(const char *text);
void ptx_run(const Program *program, const Operand *operands, int n);

#define OSR_PTX_OUT(x) osr_emulated::ptx_out(x)
#define OSR_PTX_IN(x) osr_emulated::ptx_in(x)
/* The first operand is there so that a list without any is one too. */
#define OSR_PTX(text, ...)                                                                         \
  do {                                                                                             \
    static const osr_emulated::Program *const osr_program = osr_emulated::ptx_parse(text);         \
    const osr_emulated::Operand osr_operands[] = { {}, ##__VA_ARGS__ };                            \
    osr_emulated::ptx_run(osr_program, osr_operands + 1,                                           \
                          (int) (sizeof osr_operands / sizeof *osr_operands) - 1);                 \
  } while (0)

} // namespace osr_emulated

/* --- what CUDA C declares by itself --- */

static inline void
__syncthreads(void)
{
  osr_emulated::sync_threads();
}

template <typename T>
static inline T
__shfl_xor_sync(uint32_t mask, T v, int lanes)
{
  T result;

  osr_emulated::shuffle(mask, &v, &result, sizeof v, lanes, true);
  return result;
}

template <typename T>
static inline T
__shfl_sync(uint32_t mask, T v, int lane)
{
  T result;

  osr_emulated::shuffle(mask, &v, &result, sizeof v, lane, false);
  return result;
}

static inline bool
__any_sync(uint32_t mask, bool v)
{
  return osr_emulated::any(mask, v);
}

static inline size_t
__cvta_generic_to_shared(const void *p)
{
  return osr_emulated::shared_address(p);
}

static inline void *
__cvta_generic_to_global(const void *p)
{
  return (void *) p;
}

static inline float
__uint_as_float(uint32_t bits)
{
  return osr_emulated::from_bits(bits);
}

static inline uint32_t
__float_as_uint(float v)
{
  return osr_emulated::to_bits(v);
}

static inline float
__fadd_rn(float a, float b)
{
  return a + b;
}

static inline float
__fmul_rn(float a, float b)
{
  return a * b;
}

/* The C library has a function of this name for itself. */
#define __expf(x) expf(x)

/* For 2^126 < |y| < 2^128 CUDA promises 0, and NaN if x is infinite. */
static inline float
__fdividef(float x, float y)
{
  return fabsf(y) > 0x1p126f ? x * 0.0f : x / y;
}

static inline float
rsqrtf(float x)
{
  return 1.0f / sqrtf(x);
}

static inline float
normcdff(float x)
{
  return (float) (0.5 * erfc((double) x * -0.70710678118654752440));
}

template <typename A, typename B>
static inline std::common_type_t<A, B>
min(A a, B b)
{
  typedef std::common_type_t<A, B> C;

  return (C) b < (C) a ? (C) b : (C) a;
}

template <typename A, typename B>
static inline std::common_type_t<A, B>
max(A a, B b)
{
  typedef std::common_type_t<A, B> C;

  return (C) a < (C) b ? (C) b : (C) a;
}

template <typename... Params, typename... Args>
static inline cudaError_t
cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Params...), Args &&...args)
{
  osr_emulated::address(kernel);
  std::tuple<std::remove_const_t<Params>...> values(std::forward<Args>(args)...);

  return std::apply(
      [&](auto &...v) {
        void *pointers[] = { (void *) &v... };

        return cudaLaunchKernel((const void *) kernel, config->gridDim, config->blockDim, pointers,
                                config->dynamicSmemBytes, config->stream);
      },
      values);
}

#endif /* OSR_EMULATE_H */
