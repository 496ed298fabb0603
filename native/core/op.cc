#include "core/op.h"

namespace loko {

namespace {
struct NameOf {
#define LOKO_NAME(Operation)                       \
  const char* operator()(const Operation&) const { \
    return #Operation;                             \
  }
  LOKO_OPERATIONS(LOKO_NAME)
#undef LOKO_NAME
};
}  // namespace

const char* stepName(const Step& step) {
  return std::visit(NameOf{}, step);
}

}  // namespace loko
