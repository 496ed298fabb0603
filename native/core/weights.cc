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

constexpr std::int64_t kChunkElements = 1 << 18;

/// Bytes read: fewer than `count` at the end of the file (errno is 0) or after an error.
std::int64_t readBytes(int descriptor, std::int64_t offset, std::int64_t count,
                       unsigned char* target) {
  std::int64_t done = 0;
  while (done < count) {
    errno = 0;
    const ssize_t got =
        ::pread(descriptor, target + done, static_cast<std::size_t>(count - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += got;
  }
  return done;
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

void WeightStore::replace(std::map<std::string, std::vector<float>> values) {
  for (const auto& [name, replacement] : values) {
    LOKO_CHECK(replacement.size() == size(name), name + " has another size");
  }
  // Neither swapping nor moving nodes over allocates.
  for (auto& [name, current] : replaced_) {
    if (const auto found = values.find(name); found != values.end()) current.swap(found->second);
  }
  replaced_.merge(values);
}

std::vector<float> WeightStore::read(const std::string& name) const {
  std::vector<float> values(size(name));
  read(name, 0, static_cast<std::int64_t>(values.size()), values.data());
  return values;
}

void WeightStore::read(const std::string& name, std::int64_t begin, std::int64_t count,
                       float* target) const {
  const WeightSpec& from = spec(name);
  LOKO_CHECK(begin >= 0 && count >= 0 && begin + count <= elements(from.shape),
             "elements beyond the end of " + name);
  if (const auto found = replaced_.find(name); found != replaced_.end()) {
    std::copy_n(found->second.begin() + begin, count, target);
  } else if (from.file.empty()) {
    const RandomStream random(seed_, name);
    const auto std = static_cast<float>(from.std);
    for (std::int64_t i = 0; i < count; ++i) {
      target[i] = std == 0 ? 0 : std * random.normal(static_cast<std::uint64_t>(begin + i));
    }
  } else {
    readFile(from, begin, count, target);
  }
}

void WeightStore::readFile(const WeightSpec& from, std::int64_t begin, std::int64_t count,
                           float* target) const {
  const auto file = files_.find(from.file);
  LOKO_CHECK(file != files_.end(), from.file + " was not opened");
  const std::int64_t width = bytesPerElement(from.dtype);
  std::vector<unsigned char> chunk(
      static_cast<std::size_t>(std::min(kChunkElements, count) * width));
  for (std::int64_t at = 0; at < count; at += kChunkElements) {
    const std::int64_t size = std::min(kChunkElements, count - at);
    const std::int64_t offset = (begin + at) * width;
    const std::int64_t done =
        readBytes(file->second->descriptor, from.offset + offset, size * width, chunk.data());
    if (done < size * width) {
      const std::string cause = errno == 0 ? "" : std::string(" (") + std::strerror(errno) + ")";
      throw Error(ErrorCode::kFileRead, "Expected " + std::to_string(elements(from.shape) * width) +
                                            " bytes of the weight " + from.name + " at offset " +
                                            std::to_string(from.offset) + " of " + from.file +
                                            " but the file ended or failed after " +
                                            std::to_string(offset + done) + cause +
                                            "; it was changed while it was being read");
    }
    for (std::int64_t i = 0; i < size; ++i) {
      const double value = elementAt(chunk.data(), from.dtype, i);
      const bool finite = std::fabs(value) <= std::numeric_limits<float>::max();  // not so for NaN
      if (!finite) failNotFinite(from, begin + at + i, value);
      target[at + i] = static_cast<float>(value);
    }
  }
}

void WeightStore::check(const std::string& name) const {
  const auto count = static_cast<std::int64_t>(size(name));
  std::vector<float> chunk(static_cast<std::size_t>(std::min(kChunkElements, count)));
  for (std::int64_t at = 0; at < count; at += kChunkElements) {
    read(name, at, std::min(kChunkElements, count - at), chunk.data());
  }
}

WeightId WeightTable::matrix(const std::vector<std::string>& names, int in) {
  std::string key = "matrix";
  for (const std::string& name : names) key += '\n' + name;
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second.id;
  std::vector<float> stacked;
  for (const std::string& name : names) {
    std::vector<float> part = store_.read(name);
    LOKO_CHECK(static_cast<std::int64_t>(part.size()) % in == 0, name + " is not [out, in]");
    append(stacked, std::move(part));
  }
  const int out = static_cast<int>(static_cast<std::int64_t>(stacked.size()) / in);
  const WeightId id = backend_.addMatrix(stacked.data(), out, in);
  packed_.emplace(std::move(key), Packed{id, names});
  return id;
}

WeightId WeightTable::table(const std::string& name, int rows, int cols) {
  std::string key = "table\n" + name;
  if (const auto found = packed_.find(key); found != packed_.end()) return found->second.id;
  LOKO_CHECK(store_.size(name) == static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols),
             name + " has an unexpected size");
  store_.check(name);
  const WeightId id = backend_.addTable(rows, cols, [this, name, cols](int row, float* target) {
    store_.read(name, std::int64_t{row} * cols, cols, target);
  });
  packed_.emplace(std::move(key), Packed{id, {name}});
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
