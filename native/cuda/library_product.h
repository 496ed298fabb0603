#pragma once

// cuBLASLt in place of the base term of a large product.

#include "cuda/context.h"
#include "cuda/product.h"

namespace loko::cuda {

/// Workspace for products of at most m rows.
void needLibraryProduct(std::int64_t m, int n, int depth, Context& context);

/// Where the library is there and the product is large enough, enqueues its first term: true if that was all of the
/// product, else what it gave takes the place of the term.
bool multiplyByLibrary(Product& product, Orientation right, Context& context);

}  // namespace loko::cuda
