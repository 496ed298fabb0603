#include "cuda/graph_cache.h"

#include <algorithm>

namespace loko::cuda {

namespace {

// Two passes for each of the shapes that a stream has (core/engine.cc keeps 32 plans), with a few ranks
// each. A graph of a 12-layer model has about 250 nodes.
constexpr std::size_t kKeptGraphs = 64;

}  // namespace

void GraphCache::destroy(Entry& entry) {
  if (entry.executable != nullptr) cudaGraphExecDestroy(entry.executable);
  entry.executable = nullptr;
}

void GraphCache::clear() {
  for (Entry& entry : entries_) destroy(entry);
  entries_.clear();
}

void GraphCache::forget(const Step* steps) {
  for (Entry& entry : entries_) {
    if (entry.key.steps == steps) destroy(entry);
  }
  entries_.remove_if([&](const Entry& entry) { return entry.key.steps == steps; });
}

GraphCache::Entry& GraphCache::find(const Pass& pass, std::int64_t generation) {
  if (generation != generation_) clear();
  generation_ = generation;
  const Frame& frame = pass.frame;
  Key key;
  key.steps = pass.steps;
  key.batch = frame.batch;
  key.rows = frame.rows;
  key.gramRows = frame.gramRows;
  key.firstRow = frame.firstRow;
  key.reduce = frame.reduce;
  key.gram = frame.gram != nullptr;
  key.gramWeights = pass.gramWeights;
  key.factor = pass.factor;
  key.factorRows = frame.factorRows;
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return entries_.front();
  }
  if (entries_.size() >= kKeptGraphs) {
    destroy(entries_.back());
    entries_.pop_back();
  }
  entries_.emplace_front();
  entries_.front().key = key;
  return entries_.front();
}

}  // namespace loko::cuda
