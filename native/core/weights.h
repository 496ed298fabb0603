#pragma once

// Where frozen weights come from, and the packed copies a backend holds.
//
// Rule: the checkpoint's files stay open and are read with pread when a matrix is packed or a row of a
// vocabulary is first used, so weights exist in memory only in packed form and as far as they are used, a
// file deleted meanwhile still works, and a file cut short is a coded error, not the SIGBUS that a memory
// map would give. Only what an adapter was merged into lives here as well.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/backend.h"
#include "core/dtype.h"

namespace loko {

/// One tensor: bytes of a file, values that the caller has computed, or values drawn from N(0, std) by
/// seed (a new head; std 0: zeros).
struct WeightSpec {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string file;           // empty: given or drawn
  std::vector<float> values;  // empty: drawn
  std::int64_t offset = 0;
  DType dtype = DType::kFloat32;
  double std = 0;
};

class WeightStore {
 public:
  explicit WeightStore(std::uint64_t seed);
  ~WeightStore();
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;

  void add(WeightSpec spec);
  /// Opens every file named by the specs; throws kFileRead with the path.
  void open();
  const WeightSpec& spec(const std::string& name) const;  // throws kWeightMissing
  std::size_t size(const std::string& name) const;        // in elements
  /// From now on the weight has these values.
  void replace(const std::string& name, std::vector<float> values);
  /// The same for several, all of them or, where it throws, none.
  void replace(std::map<std::string, std::vector<float>> values);
  /// Throws kFileRead where the file ends early, kWeightNotFinite for NaN, an infinity, or a float64
  /// beyond float32; both name the place.
  std::vector<float> read(const std::string& name) const;
  /// Elements [begin, begin + count), with the same errors.
  void read(const std::string& name, std::int64_t begin, std::int64_t count, float* target) const;
  /// Reads the weight for its errors alone.
  void check(const std::string& name) const;

 private:
  struct File;
  void readFile(const WeightSpec& from, std::int64_t begin, std::int64_t count,
                float* target) const;

  std::uint64_t seed_;
  std::map<std::string, WeightSpec> specs_;
  std::map<std::string, std::vector<float>> replaced_;
  std::map<std::string, std::unique_ptr<File>> files_;
};

/// Packs on first use and remembers: lowering asks for a matrix by the names of its parts.
class WeightTable {
 public:
  WeightTable(const WeightStore& store, Backend& backend) : store_(store), backend_(backend) {}

  /// The [sum of outs, in] matrix of stacked parts.
  WeightId matrix(const std::vector<std::string>& names, int in);
  /// A [rows, cols] table of which each run reads few rows. It is checked now and read row by row when it
  /// is used: the words of a stream are a small part of a vocabulary.
  WeightId table(const std::string& name, int rows, int cols);
  /// Stacked vectors; an empty name stands for zeros of the given size. kNoWeight when all are
  /// empty.
  WeightId vector(const std::vector<std::pair<std::string, std::int64_t>>& namesAndSizes);
  /// What is computed out of weights before it is packed: a batch norm folded into a convolution. `key`
  /// names the rule; with `names` it says which copy this is. make() runs where there is none yet.
  WeightId derived(const std::string& key, const std::vector<std::string>& names,
                   const std::function<WeightId(const WeightStore&, Backend&)>& make);
  /// Forgets every packed copy that has one of these weights in it; no plan may use it any more.
  void release(const std::vector<std::string>& names);

 private:
  struct Packed {
    WeightId id;
    std::vector<std::string> names;
  };
  const WeightStore& store_;
  Backend& backend_;
  std::map<std::string, Packed> packed_;
};

}  // namespace loko
