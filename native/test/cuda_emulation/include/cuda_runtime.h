#pragma once

// Stands in for the CUDA runtime's header of this name when the project's .cu files are compiled as
// plain C++: the same names with the same meaning, as far as the project uses them. A name that is
// missing here fails to compile rather than being approximated.

#include "cuda_emulation/keywords.h"
#include "cuda_emulation/vector_types.h"
#include "cuda_emulation/builtins.h"
#include "cuda_emulation/math.h"
#include "cuda_emulation/collectives.h"
#include "cuda_emulation/atomics.h"
#include "cuda_emulation/runtime_types.h"
#include "cuda_emulation/runtime_api.h"
#include "cuda_emulation/launch.h"
