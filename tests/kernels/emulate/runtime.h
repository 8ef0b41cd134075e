/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef OSR_EMULATE_RUNTIME_H
#define OSR_EMULATE_RUNTIME_H

#include "cuda_runtime_api.h"

#include <functional>

namespace osr_emulated
{

/* Puts work on a stream, or into what is recorded from it. */
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

} // namespace osr_emulated

#endif /* OSR_EMULATE_RUNTIME_H */
