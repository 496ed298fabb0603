#pragma once

// Typed access to the fields of an object that lib/ hands over. lib/ has validated what users give;
// a field that is missing or of another type here is a bug, reported with its path.

#include <napi.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace loko::addon {

/// Bound of integers that become an int.
constexpr std::int64_t kMaxInt = std::numeric_limits<int>::max();

class PropertyReader {
 public:
  /// `path` names the object in messages. Throws kInternal unless `value` is an object.
  PropertyReader(const Napi::Value& value, std::string path);

  bool has(const char* key) const;
  Napi::Value value(const char* key) const;
  double number(const char* key) const;
  double number(const char* key, double absent) const { return has(key) ? number(key) : absent; }
  bool boolean(const char* key, bool absent) const;
  std::string string(const char* key) const;
  std::string string(const char* key, const char* absent) const;
  /// A whole number in [min, max].
  std::int64_t integer(const char* key, std::int64_t min, std::int64_t max) const;
  PropertyReader object(const char* key) const;
  std::vector<PropertyReader> objects(const char* key) const;
  std::vector<std::int64_t> integers(const char* key, std::int64_t min, std::int64_t max) const;
  /// The elements of a Float32Array.
  std::vector<float> floats(const char* key) const;

  const std::string& path() const { return path_; }
  [[noreturn]] void fail(const char* key, const std::string& expected) const;

 private:
  Napi::Object object_;
  std::string path_;
};

/// The entry of `choices` whose name is the string `key`.
template <class Choice, std::size_t size>
Choice readChoice(const PropertyReader& reader, const char* key,
                  const std::pair<const char*, Choice> (&choices)[size]) {
  const std::string name = reader.string(key);
  for (const auto& [spelling, choice] : choices) {
    if (name == spelling) return choice;
  }
  reader.fail(key, "a known name instead of \"" + name + "\"");
}

}  // namespace loko::addon
