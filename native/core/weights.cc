#include "core/weights.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/rng.h"
#include "core/status.h"

namespace loko {

namespace {

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1},
                         [](std::int64_t a, std::int64_t b) { return a * b; });
}

/// One NaN would make every step a skipped one, long after the checkpoint that holds it was loaded.
[[noreturn]] void failNotFinite(const WeightSpec& from, std::int64_t element, double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  throw Error(ErrorCode::kWeightNotFinite,
              "Expected numbers within the range of float32 but the weight " + from.name +
                  " holds " + text + " at element " + std::to_string(element) + " in " + from.file +
                  "; the checkpoint is broken or its training diverged");
}

/// Most weights stand alone, and the table of a vocabulary is too large to copy for nothing.
void append(std::vector<float>& stacked, std::vector<float>&& part) {
  if (stacked.empty()) {
    stacked = std::move(part);
  } else {
    stacked.insert(stacked.end(), part.begin(), part.end());
  }
}

}  // namespace

struct WeightStore::File {
  int descriptor = -1;
  ~File() {
    if (descriptor >= 0) ::close(descriptor);
  }
};

WeightStore::WeightStore(std::uint64_t seed) : seed_(seed) {}
WeightStore::~WeightStore() = default;

void WeightStore::add(WeightSpec spec) {
  const std::string name = spec.name;
  std::vector<float> values = std::move(spec.values);
  specs_.insert_or_assign(name, std::move(spec));
  if (!values.empty()) replace(name, std::move(values));
}

void WeightStore::open() {
  for (const auto& [name, spec] : specs_) {
    if (spec.file.empty() || files_.count(spec.file) != 0) continue;
    auto file = std::make_unique<File>();
    file->descriptor = ::open(spec.file.c_str(), O_RDONLY | O_CLOEXEC);
    if (file->descriptor < 0) {
      throw Error(ErrorCode::kFileRead, "Cannot open " + spec.file + " (" + std::strerror(errno) +
                                            "), which holds the weight " + name);
    }
    files_.emplace(spec.file, std::move(file));
  }
}

const WeightSpec& WeightStore::spec(const std::string& name) const {
  const auto found = specs_.find(name);
  if (found == specs_.end()) {
    throw Error(ErrorCode::kWeightMissing, "Expected the weight " + name + " but no file has it");
  }
  return found->second;
}

std::size_t WeightStore::size(const std::string& name) const {
  return static_cast<std::size_t>(elements(spec(name).shape));
}

void WeightStore::replace(const std::string& name, std::vector<float> values) {
  LOKO_CHECK(values.size() == size(name), name + " has another size");
  replaced_.insert_or_assign(name, std::move(values));
}

std::vector<float> WeightStore::read(const std::string& name) const {
  const WeightSpec& from = spec(name);
  if (const auto found = replaced_.find(name); found != replaced_.end()) return found->second;
  const std::int64_t count = elements(from.shape);
  std::vector<float> values(static_cast<std::size_t>(count));
  if (from.file.empty()) {
    const RandomStream random(seed_, name);
    if (from.std != 0) {
      for (std::int64_t i = 0; i < count; ++i) {
        values[static_cast<std::size_t>(i)] =
            static_cast<float>(from.std) * random.normal(static_cast<std::uint64_t>(i));
      }
    }
    return values;
  }
  const auto file = files_.find(from.file);
  LOKO_CHECK(file != files_.end(), from.file + " was not opened");
  const int width = bytesPerElement(from.dtype);
  constexpr std::int64_t kChunkElements = 1 << 18;
  std::vector<unsigned char> chunk(static_cast<std::size_t>(kChunkElements * width));
  for (std::int64_t begin = 0; begin < count; begin += kChunkElements) {
    const std::int64_t size = std::min(kChunkElements, count - begin);
    std::int64_t done = 0;
    while (done < size * width) {
      const ssize_t got = ::pread(file->second->descriptor, chunk.data() + done,
                                  static_cast<std::size_t>(size * width - done),
                                  from.offset + begin * width + done);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        throw Error(ErrorCode::kFileRead,
                    "Expected " + std::to_string(count * width) + " bytes of the weight " + name +
                        " at offset " + std::to_string(from.offset) + " of " + from.file +
                        " but the file ended or failed after " +
                        std::to_string(begin * width + done) +
                        (got < 0 ? std::string(" (") + std::strerror(errno) + ")" : std::string()) +
                        "; it was changed while it was being read");
      }
      done += got;
    }
    for (std::int64_t i = 0; i < size; ++i) {
      const double value = elementAt(chunk.data(), from.dtype, i);
      const bool finite = std::fabs(value) <= std::numeric_limits<float>::max();  // not so for NaN
      if (!finite) failNotFinite(from, begin + i, value);
      values[static_cast<std::size_t>(begin + i)] = static_cast<float>(value);
    }
  }
  return values;
}

WeightId WeightTable::matrix(const std::vector<std::string>& names, int in,
                             Orientation orientation) {
  std::string key = orientation == Orientation::kForward ? "forward" : "backward";
  for (const std::string& name : names) key += '\n' + name;
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second.id;
  std::vector<float> stacked;
  for (const std::string& name : names) {
    std::vector<float> part = store_.read(name);
    LOKO_CHECK(static_cast<std::int64_t>(part.size()) % in == 0, name + " is not [out, in]");
    append(stacked, std::move(part));
  }
  const int out = static_cast<int>(static_cast<std::int64_t>(stacked.size()) / in);
  const WeightId id = backend_.addMatrix(stacked.data(), out, in, orientation);
  packed_.emplace(std::move(key), Packed{id, names});
  return id;
}

WeightId WeightTable::vector(const std::vector<std::pair<std::string, std::int64_t>>& parts) {
  std::string key = "vector";
  bool any = false;
  for (const auto& [name, size] : parts) {
    key += '\n' + name + ':' + std::to_string(size);
    any = any || !name.empty();
  }
  if (!any) return kNoWeight;
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second.id;
  std::vector<float> stacked;
  std::vector<std::string> names;
  for (const auto& [name, size] : parts) {
    names.push_back(name);
    if (name.empty()) {
      stacked.insert(stacked.end(), static_cast<std::size_t>(size), 0.0F);
      continue;
    }
    std::vector<float> part = store_.read(name);
    LOKO_CHECK(static_cast<std::int64_t>(part.size()) == size, name + " has an unexpected size");
    append(stacked, std::move(part));
  }
  const WeightId id = backend_.addVector(stacked.data(), static_cast<std::int64_t>(stacked.size()));
  packed_.emplace(std::move(key), Packed{id, std::move(names)});
  return id;
}

WeightId WeightTable::derived(const std::string& rule, const std::vector<std::string>& names,
                              const std::function<WeightId(const WeightStore&, Backend&)>& make) {
  std::string key = rule;
  for (const std::string& name : names) key += '\n' + name;
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second.id;
  const WeightId id = make(store_, backend_);
  packed_.emplace(std::move(key), Packed{id, names});
  return id;
}

void WeightTable::release(const std::vector<std::string>& names) {
  for (auto entry = packed_.begin(); entry != packed_.end();) {
    const std::vector<std::string>& parts = entry->second.names;
    const bool stale =
        std::find_first_of(parts.begin(), parts.end(), names.begin(), names.end()) != parts.end();
    if (stale) backend_.release(entry->second.id);
    entry = stale ? packed_.erase(entry) : std::next(entry);
  }
}

}  // namespace loko
