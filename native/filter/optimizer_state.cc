#include "filter/optimizer_state.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/status.h"

namespace loko {
namespace {

View thetaView(std::int64_t parameters) {
  LOKO_CHECK(parameters <= std::numeric_limits<int>::max(), "too many parameters for one row");
  const int n = static_cast<int>(parameters);
  return {Space::kTheta, 0, 1, n, n, n};
}

class Describer final : public StateVisitor {
 public:
  explicit Describer(std::vector<StateEntry>& entries) : entries_(entries) {}
  void number(const char* name, double&, Domain) override { entries_.push_back({name, {}, 1}); }
  void count(const char* name, std::int64_t&) override { entries_.push_back({name, {}, 1}); }
  void flag(const char* name, bool&) override { entries_.push_back({name, {}, 1}); }
  void matrix(const char* name, std::vector<double>& values, int rows) override {
    const auto size = static_cast<std::int64_t>(values.size());
    entries_.push_back({name, {rows, rows > 0 ? size / rows : 0}, size});
  }
  void array(const char* name, StateArray& values, Domain) override {
    entries_.push_back({name, {values.size()}, values.size()});
  }

 private:
  std::vector<StateEntry>& entries_;
};

class Reader final : public StateVisitor {
 public:
  Reader(Backend& backend, double* target) : backend_(backend), target_(target) {}
  void number(const char*, double& value, Domain) override { *target_++ = value; }
  void count(const char*, std::int64_t& value) override { *target_++ = static_cast<double>(value); }
  void flag(const char*, bool& value) override { *target_++ = value ? 1 : 0; }
  void matrix(const char*, std::vector<double>& values, int) override {
    target_ = std::copy(values.begin(), values.end(), target_);
  }
  void array(const char*, StateArray& values, Domain) override {
    backend_.readState(values, target_);
    target_ += values.size();
  }

 private:
  Backend& backend_;
  double* target_;
};

[[noreturn]] void refuse(const char* name, const std::string& expected, double got) {
  throw Error(ErrorCode::kOption,
              std::string("\"") + name + "\" must be " + expected + ", got " + std::to_string(got));
}

/// Looks at everything before the first number is changed.
class Checker final : public StateVisitor {
 public:
  explicit Checker(const double* source) : source_(source) {}
  void number(const char* name, double&, Domain domain) override { require(name, 1, domain); }
  void count(const char* name, std::int64_t&) override {
    constexpr double kMost = 9007199254740991;  // 2^53 - 1
    const double value = *source_++;
    if (!(value >= 0 && value <= kMost && value == std::floor(value))) {
      refuse(name, "a count", value);
    }
  }
  void flag(const char* name, bool&) override {
    const double value = *source_++;
    if (value != 0 && value != 1) refuse(name, "0 or 1", value);
  }
  void matrix(const char* name, std::vector<double>& values, int) override {
    require(name, static_cast<std::int64_t>(values.size()), Domain::kReal);
  }
  void array(const char* name, StateArray& values, Domain domain) override {
    require(name, values.size(), domain);
  }

  void require(const char* name, std::int64_t size, Domain domain) {
    for (std::int64_t i = 0; i < size; ++i, ++source_) {
      if (!std::isfinite(*source_)) refuse(name, "finite", *source_);
      if (domain == Domain::kPositive && *source_ <= 0) refuse(name, "positive", *source_);
      if (domain != Domain::kReal && *source_ < 0) refuse(name, "not negative", *source_);
    }
  }

 private:
  const double* source_;
};

class Writer final : public StateVisitor {
 public:
  Writer(Backend& backend, const double* source) : backend_(backend), source_(source) {}
  void number(const char*, double& value, Domain) override { value = *source_++; }
  void count(const char*, std::int64_t& value) override {
    value = static_cast<std::int64_t>(*source_++);
  }
  void flag(const char*, bool& value) override { value = *source_++ != 0; }
  void matrix(const char*, std::vector<double>& values, int) override {
    std::copy_n(source_, values.size(), values.begin());
    source_ += values.size();
  }
  void array(const char*, StateArray& values, Domain) override {
    backend_.writeState(values, 0, values.size(), source_);
    source_ += values.size();
  }

 private:
  Backend& backend_;
  const double* source_;
};

std::int64_t totalSize(Optimizer& optimizer, std::int64_t parameters) {
  std::int64_t total = 0;
  for (const StateEntry& entry : describeState(optimizer, parameters)) total += entry.size;
  return total;
}

}  // namespace

std::vector<StateEntry> describeState(Optimizer& optimizer, std::int64_t parameters) {
  std::vector<StateEntry> entries{{"theta", {parameters}, parameters}};
  Describer describer(entries);
  optimizer.visitState(describer);
  return entries;
}

std::vector<double> readState(Optimizer& optimizer, Objective& objective) {
  const std::int64_t n = objective.parameters();
  std::vector<double> values(static_cast<std::size_t>(totalSize(optimizer, n)));
  objective.backend().readView(thetaView(n), 1, values.data());
  Reader reader(objective.backend(), values.data() + n);
  optimizer.visitState(reader);
  return values;
}

void writeState(Optimizer& optimizer, Objective& objective, const std::vector<double>& values) {
  const std::int64_t n = objective.parameters();
  if (static_cast<std::int64_t>(values.size()) != totalSize(optimizer, n)) {
    throw Error(ErrorCode::kOption, "the state has another number of values than the optimizer");
  }
  Checker checker(values.data());
  checker.require("theta", n, Domain::kReal);
  optimizer.visitState(checker);
  objective.backend().writeView(thetaView(n), 1, values.data());
  Writer writer(objective.backend(), values.data() + n);
  optimizer.visitState(writer);
}

}  // namespace loko
