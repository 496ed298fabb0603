#include "cpu/isa.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "core/status.h"

namespace {

using namespace loko::cpu;

// Sets LOKO_CPU_ISA for one scope.
class ForcedIsa {
 public:
  explicit ForcedIsa(const char* value) {
    if (const char* previous = std::getenv("LOKO_CPU_ISA")) previous_ = previous;
    ::setenv("LOKO_CPU_ISA", value, 1);
  }
  ~ForcedIsa() {
    if (previous_.empty())
      ::unsetenv("LOKO_CPU_ISA");
    else
      ::setenv("LOKO_CPU_ISA", previous_.c_str(), 1);
  }

 private:
  std::string previous_;
};

}  // namespace

TEST_CASE("the generic kernels are always available and the widest set is the default") {
  const std::vector<Isa> isas = availableIsas();
  CHECK(isas.front() == Isa::kGeneric);
  const ForcedIsa none("");
  CHECK(chooseIsa() == isas.back());
}

TEST_CASE("LOKO_CPU_ISA chooses each available instruction set by its name") {
  for (const Isa isa : availableIsas()) {
    const ForcedIsa forced(isaName(isa));
    CHECK(chooseIsa() == isa);
    CHECK(kernels(isa).name == std::string(isaName(isa)));
  }
}

TEST_CASE("an unknown LOKO_CPU_ISA is refused with the names that are available") {
  const ForcedIsa forced("sse9");
  try {
    chooseIsa();
    FAIL("expected an error");
  } catch (const loko::Error& error) {
    CHECK(error.code() == loko::ErrorCode::kOption);
    const std::string message = error.what();
    CHECK(message.find("\"sse9\"") != std::string::npos);
    for (const Isa isa : availableIsas()) CHECK(message.find(isaName(isa)) != std::string::npos);
  }
}

TEST_CASE("every instruction set offers a tile for each height up to its tallest") {
  for (const Isa isa : availableIsas()) {
    const Kernels& table = kernels(isa);
    CHECK(kPanelColumns % table.tileColumns == 0);
    for (int height = 1; height <= kMaxTileRows; ++height) {
      CHECK((table.tile[height - 1] != nullptr) == (height <= table.tileRows));
      CHECK((table.narrowTile[height - 1] != nullptr) == (height <= table.tileRows));
    }
  }
}

TEST_CASE("kernels that this machine lacks are refused, not handed out") {
  const std::vector<Isa> isas = availableIsas();
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (std::find(isas.begin(), isas.end(), isa) != isas.end()) continue;
    CHECK_THROWS_AS(kernels(isa), loko::Error);
    const ForcedIsa forced(isaName(isa));
    CHECK_THROWS_AS(chooseIsa(), loko::Error);
  }
}
