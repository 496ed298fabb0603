#include "addon/property_reader.h"

#include <cmath>

#include "core/status.h"

namespace loko::addon {

namespace {

/// Whether `value` is a whole number in [min, max]; both bounds are exact in a double here.
bool isInteger(const Napi::Value& value, std::int64_t min, std::int64_t max) {
  if (!value.IsNumber()) return false;
  const double number = value.As<Napi::Number>().DoubleValue();
  return std::floor(number) == number && number >= static_cast<double>(min) &&
         number <= static_cast<double>(max);
}

std::int64_t toInteger(const Napi::Value& value) {
  return static_cast<std::int64_t>(value.As<Napi::Number>().DoubleValue());
}

}  // namespace

PropertyReader::PropertyReader(const Napi::Value& value, std::string path)
    : path_(std::move(path)) {
  if (!value.IsObject()) {
    throw Error(ErrorCode::kInternal, "Native interface: " + path_ + " is not an object");
  }
  object_ = value.As<Napi::Object>();
}

void PropertyReader::fail(const char* key, const std::string& expected) const {
  throw Error(ErrorCode::kInternal,
              "Native interface: expected " + path_ + "." + key + " to be " + expected);
}

Napi::Value PropertyReader::value(const char* key) const {
  return object_.Get(key);
}

bool PropertyReader::has(const char* key) const {
  return !value(key).IsUndefined();
}

double PropertyReader::number(const char* key) const {
  const Napi::Value field = value(key);
  if (!field.IsNumber()) fail(key, "a number");
  return field.As<Napi::Number>().DoubleValue();
}

bool PropertyReader::boolean(const char* key, bool absent) const {
  const Napi::Value field = value(key);
  if (field.IsUndefined()) return absent;
  if (!field.IsBoolean()) fail(key, "true or false");
  return field.As<Napi::Boolean>().Value();
}

std::string PropertyReader::string(const char* key) const {
  const Napi::Value field = value(key);
  if (!field.IsString()) fail(key, "a string");
  return field.As<Napi::String>().Utf8Value();
}

std::string PropertyReader::string(const char* key, const char* absent) const {
  return has(key) ? string(key) : absent;
}

std::int64_t PropertyReader::integer(const char* key, std::int64_t min, std::int64_t max) const {
  const Napi::Value field = value(key);
  if (!isInteger(field, min, max)) {
    fail(key, "an integer in [" + std::to_string(min) + ", " + std::to_string(max) + "]");
  }
  return toInteger(field);
}

PropertyReader PropertyReader::object(const char* key) const {
  return PropertyReader(value(key), path_ + "." + key);
}

std::vector<PropertyReader> PropertyReader::objects(const char* key) const {
  const Napi::Value field = value(key);
  if (!field.IsArray()) fail(key, "an array");
  const auto array = field.As<Napi::Array>();
  std::vector<PropertyReader> result;
  result.reserve(array.Length());
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    result.emplace_back(array.Get(i), path_ + "." + key + "[" + std::to_string(i) + "]");
  }
  return result;
}

std::vector<std::int64_t> PropertyReader::integers(const char* key, std::int64_t min,
                                                   std::int64_t max) const {
  const Napi::Value field = value(key);
  if (!field.IsArray()) fail(key, "an array");
  const auto array = field.As<Napi::Array>();
  std::vector<std::int64_t> result;
  result.reserve(array.Length());
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value entry = array.Get(i);
    if (!isInteger(entry, min, max)) fail(key, "an array of integers");
    result.push_back(toInteger(entry));
  }
  return result;
}

std::vector<float> PropertyReader::floats(const char* key) const {
  const Napi::Value found = value(key);
  if (!found.IsTypedArray() ||
      found.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
    fail(key, "a Float32Array");
  }
  const auto array = found.As<Napi::Float32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

}  // namespace loko::addon
