/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensora.h: everything that libopensora offers to applications.
 */
#pragma once

#include "aspect.h"
#include "checkpoint.h"
#include "device.h"
#include "error.h"
#include "frames.h"
#include "lora.h"
#include "model.h"
#include "ops.h"
#include "part.h"
#include "plan.h"
#include "preview.h"
#include "prompts.h"
#include "resize.h"
#include "sampler.h"
#include "tensor.h"
#include "vae.h"
